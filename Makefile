# Two commands for a new user: `make demo` and `make test`. Both set everything up in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-models test-kernels test-k8s soak check clean

demo: .venv/ready
	$(BIN)/python scripts/demo.py

# The tests of one file share what is costly to make, so they run in one process, two files at once.
test: .venv/ready
	$(BIN)/python -m pytest -n 2

# Every architecture of tests/support/architectures.py through the whole job, beside transformers.
test-models: .venv/ready
	QLORA_TEST_ALL_MODELS=1 $(BIN)/python -m pytest tests/models/test_sweep.py

# The Triton kernels on a machine without a GPU: run in its interpreter, and compiled for three GPUs.
# The CPU's torch comes without Triton (0.7 GB), so nobody else pays for it.
test-kernels: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $$(grep -o '^triton==[0-9.]*' docker/requirements-cu130.lock)
	$(BIN)/python -m pytest tests/kernels

# The cases of tests/deployment/test_kubernetes.py on the cluster of KUBECONFIG, in its current namespace. The
# S3 server in AWS_* has to answer from here and from its pods; QLORA_TEST_IMAGE is the CPU image.
test-k8s: .venv/ready
	@test -n "$(KUBECONFIG)" && test -n "$(QLORA_TEST_IMAGE)" && test -n "$(AWS_ENDPOINT_URL_S3)" \
	  || { echo "this needs KUBECONFIG, QLORA_TEST_IMAGE and AWS_ENDPOINT_URL_S3"; exit 2; }
	QLORA_TEST_CLUSTER=1 $(BIN)/python -m pytest -m s3 tests/deployment/test_kubernetes.py

# The long version of what CI runs short; with an S3 server in AWS_* add S3=--s3.
soak: .venv/ready
	$(BIN)/python tests/soak.py $(S3) kills:200 operations saves signals:100 damage publishing:100 races:50 freezes:30 disks:50
	$(if $(S3),$(BIN)/python tests/soak_storage.py)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: requirements.txt requirements-dev.txt requirements-tracking.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "this needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up .venv, once: some minutes"
	@$(PYTHON) scripts/set_up.py .venv requirements.txt requirements-dev.txt
	touch $@

clean:
	rm -rf .venv demo-output build qlora_job.egg-info
