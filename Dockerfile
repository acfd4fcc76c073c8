# One image, three variants; docs/decisions/0003-image.md gives the reasons.
#
#   docker build -t qlora-job:cu130 .
#   docker build -t qlora-job:cu126 --build-arg VARIANT=cu126 .          (drivers below 580)
#   docker build -t qlora-job:cpu --build-arg VARIANT=cpu --build-arg BASE_IMAGE=ubuntu:24.04 .
#
# The base brings no CUDA library that torch uses (its wheels do): only cuda-compat, with which a
# data-centre GPU runs CUDA 13 on a driver from 535 on. To pin another one:
#   docker pull IMAGE:TAG && docker inspect --format '{{index .RepoDigests 0}}' IMAGE:TAG
ARG BASE_IMAGE=nvidia/cuda:13.0.3-base-ubuntu24.04@sha256:7c7413a56200486f71f181cad9310f6fd31b6bb21816ade15fc9c1e1e927a5c1

FROM ${BASE_IMAGE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
ARG VARIANT=cu130
# torch's own index, for the builds that PyPI does not have; empty where pip finds them otherwise.
ARG TORCH_INDEX=https://download.pytorch.org/whl
COPY docker/requirements-${VARIANT}.lock docker/trim /build/
# pip lives in a venv of its own: it is not part of the image.
RUN python3 -m venv /pip && python3 -m venv --without-pip /venv \
 && if [ "$VARIANT" != cu130 ] && [ -n "$TORCH_INDEX" ]; then export PIP_EXTRA_INDEX_URL="$TORCH_INDEX/$VARIANT"; fi \
 && /pip/bin/pip --python /venv/bin/python install --no-cache-dir --no-compile --no-deps --only-binary :all: \
      --disable-pip-version-check --progress-bar off --require-hashes -r "/build/requirements-$VARIANT.lock" \
 && python3 /build/trim /venv "$VARIANT"
# Train the built-in model: a test of what was installed and trimmed, and it leaves the bytecode of
# exactly the modules that a run loads. Without bytecode every start would compile them again.
WORKDIR /app
COPY entrypoint.py ./
COPY trainer trainer
COPY examples /build/examples
RUN chmod -R a+rX /app && mkdir /pycache && head -n 4 /build/examples/heldout/questions.jsonl >/build/few.jsonl \
 && export PYTHONPYCACHEPREFIX=/pycache HF_HUB_OFFLINE=1 NVIDIA_VISIBLE_DEVICES=void \
      QLORA_BASE_MODEL=builtin:tiny QLORA_DATA_URI=/build/examples/data QLORA_EVAL_URI=/build/few.jsonl \
      QLORA_OUTPUT_URI=/build/out QLORA_MAX_LOSS_RATIO=2 QLORA_MAX_STEPS=2 QLORA_MAX_LENGTH=64 QLORA_EFFECTIVE_BATCH_SIZE=1 \
 && /venv/bin/python entrypoint.py \
 && /venv/bin/python -c "import boto3; boto3.client('s3', region_name='us-east-1')" \
 && test -s /build/out/*/manifest.json

FROM ${BASE_IMAGE} AS image
ARG VARIANT=cu130
# Triton compiles its launchers when it first runs a kernel: gcc, the C library's and Python's headers.
# Link-time optimisation, sanitizers, other linkers and static libraries are of no use to that.
# hadolint ignore=DL3003,DL3008
RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update && apt-get install -y --no-install-recommends python3 ca-certificates \
 && if [ "$VARIANT" != cpu ]; then apt-get install -y --no-install-recommends gcc libc6-dev python3-dev; fi \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* /usr/share/doc/* /usr/share/man/* \
 && find /usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} + \
 && if [ "$VARIANT" != cpu ]; then cd /usr && rm -f bin/*-lto-dump* bin/*-dwp bin/*-ld.gold bin/*gprofng* lib/*/libgprofng* \
      lib/gcc/*/*/lto1 lib/*/lib[alt]san.so* lib/*/libubsan.so* lib/gcc/*/*/lib*san*.a lib/*/libm-*.a lib/*/libmvec.a lib/*/libc.a lib/python3*/config-*/libpython*.a; fi \
 && mkdir -m 1777 /output /tmp/hf /tmp/qlora
COPY --from=build /venv /venv
COPY --from=build /pycache /pycache
COPY --from=build /app /app
WORKDIR /app

# Everything that is written lies under /tmp, so that any user id works on a read-only root.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX=/pycache \
    HOME=/tmp LOGNAME=qlora TMPDIR=/tmp HF_HOME=/tmp/hf \
    TRITON_CACHE_DIR=/tmp/triton TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["python", "entrypoint.py"]

ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=
LABEL org.opencontainers.image.title="qlora-job" \
      org.opencontainers.image.description="QLoRA fine-tuning of a causal language model as one batch job" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      qlora-job.variant="$VARIANT"
