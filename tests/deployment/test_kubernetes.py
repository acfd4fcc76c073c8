"""The real k8s/job.yaml, run as the Job controller would, from bucket to bucket on a real server.

`make test-k8s` runs the same cases on the cluster of KUBECONFIG.
"""

import base64
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import cluster
from support.buckets import keys, upload_questions
from support.cluster import Cluster, Documents, Local, Pod, container, find, load, render
from support.jobs import adapter_bytes, run_here, start, variables
from support.network import unused_port

pytestmark = pytest.mark.s3
ON_A_CLUSTER = os.environ.get("QLORA_TEST_CLUSTER") == "1"
JOB = cluster.ROOT / "k8s/job.yaml"
OVERLAYS = cluster.ROOT / "k8s/overlays"
over_http = pytest.mark.parametrize("bucket", ["http"], indirect=True)
locally = pytest.mark.skipif(ON_A_CLUSTER, reason="needs a server that only this machine reaches")
STEPS = "12"
AWAY_S = 1  # how long the bucket stays away after a pod has given up


@pytest.fixture
def runner(tmp_path: Path) -> Cluster | Local:
    return Cluster() if ON_A_CLUSTER else Local(tmp_path / "pods")


def configured(bucket: Any, folder: Path, documents: Documents, **changes: str) -> Documents:
    """`documents` with the settings of a small run, the bucket and its credentials."""
    settings = variables(folder, **upload_questions(bucket), **changes)
    del settings["QLORA_SCRATCH_DIR"]  # the manifest's volume
    data = find(documents, "ConfigMap", "qlora-job")["data"]
    data.update(settings, AWS_ENDPOINT_URL_S3=os.environ["AWS_ENDPOINT_URL_S3"])
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "qlora-job"},
        "stringData": {name: os.environ[name] for name in names},
    }
    return [*(d for d in documents if d["kind"] != "Secret"), secret]


def published(bucket: Any) -> bytes:
    """The weights of the one run in the bucket."""
    (key,) = (key for key in keys(bucket) if key.endswith("adapter_model.safetensors"))
    return bytes(bucket.Object(key).get()["Body"].read())


def steps(pod: Pod) -> int:
    return sum('"message": "step"' in line for line in pod.lines)


@over_http
def test_a_wrong_setting_is_tried_once_and_says_what_to_do(
    bucket: Any, runner: Any, tmp_path: Path
) -> None:
    outcome = runner.run(configured(bucket, tmp_path, load(JOB), LORA_R="0"))
    (pod,) = outcome.pods
    assert (outcome.condition, outcome.reason) == ("Failed", "PodFailurePolicy")
    assert pod.exit_code == 2
    assert pod.message.strip().removeprefix("error: ") == "QLORA_LORA_R=0: needs at least 1"


def test_the_sentence_is_written_where_kubernetes_looks_for_it(tmp_path: Path) -> None:
    message = tmp_path / "termination-log"  # the container's is /dev/termination-log
    message.touch()
    program = (
        "import pathlib; from trainer import cli; from trainer.runtime import last_words; "
        f"last_words.TERMINATION_LOG = pathlib.Path({str(message)!r}); cli.main()"
    )
    environment = os.environ | variables(tmp_path, LORA_R="0")
    done = subprocess.run([sys.executable, "-c", program], cwd=cluster.ROOT, env=environment)
    assert done.returncode == 2
    assert message.read_text() == "QLORA_LORA_R=0: needs at least 1"


@locally
def test_a_bucket_that_is_away_for_a_while_is_waited_for(faults: Any, tmp_path: Path) -> None:
    documents = configured(
        faults.bucket, tmp_path, load(JOB), STORAGE_RETRY_MINUTES="0.05", MAX_STEPS="2"
    )
    faults.add("", "slowdown", times=10**6)

    def come_back(_pod: Pod, line: str) -> None:
        if line.startswith("error:") and back.ident is None:
            back.start()

    back = threading.Timer(AWAY_S, lambda: faults.add("", "slowdown", times=0))
    outcome = Local(tmp_path / "pods", backoff_s=4).run(documents, come_back)
    first, *_, last = outcome.pods
    assert first.exit_code == 12
    assert "answered SlowDown (503)" in first.message
    assert "start again when it answers" in first.message
    assert last.exit_code == 0
    assert outcome.condition == "Complete"
    assert outcome.failed == len(outcome.pods) - 1 >= 1


@over_http
def test_evictions_are_not_counted_and_change_no_byte(
    bucket: Any, runner: Any, tmp_path: Path
) -> None:
    evicted: list[Pod] = []

    def evict(pod: Pod, _line: str) -> None:
        if len(evicted) < 3 and pod not in evicted and steps(pod) == 2:
            evicted.append(pod)
            pod.evict()

    changes = {"MAX_STEPS": STEPS, "CHECKPOINT_EVERY": "60m"}  # only SIGTERM saves
    documents = configured(bucket, tmp_path, load(JOB), **changes)
    find(documents, "Job")["spec"]["backoffLimit"] = 0
    outcome = runner.run(documents, evict)
    assert (outcome.condition, outcome.failed, len(outcome.pods)) == ("Complete", 0, 4)
    for before, after in zip(outcome.pods, outcome.pods[1:], strict=False):
        assert before.exit_code in (33, None)
        assert any("resuming from checkpoint" in line for line in after.lines)
    assert published(bucket) == adapter_bytes(run_here(tmp_path / "undisturbed", **changes))

    again = type(runner)() if ON_A_CLUSTER else Local(tmp_path / "again")
    outcome = again.run(documents)
    (pod,) = outcome.pods
    assert (outcome.condition, pod.exit_code, steps(pod)) == ("Complete", 0, 0)
    assert any("already finished" in line for line in pod.lines)


@over_http
def test_a_deadline_ends_the_run_with_its_state_saved(
    bucket: Any, runner: Any, tmp_path: Path
) -> None:
    changes = {"MAX_STEPS": "100000", "CHECKPOINT_EVERY": "60m"}
    documents = configured(bucket, tmp_path, load(JOB), **changes)
    find(documents, "Job")["spec"]["activeDeadlineSeconds"] = 90 if ON_A_CLUSTER else 3600

    def pass_time(pod: Pod, _line: str) -> None:
        if not ON_A_CLUSTER and steps(pod) == 2:
            runner.pass_time(3600)

    outcome = runner.run(documents, pass_time)
    (pod,) = outcome.pods
    assert (outcome.condition, outcome.reason) == ("Failed", "DeadlineExceeded")
    assert pod.exit_code in (33, None)
    assert "SIGTERM stopped the run; start it again" in pod.lines[-1]
    assert steps(pod) > 0
    assert any("/checkpoints/" in key and key.endswith("manifest.json") for key in keys(bucket))


@over_http
@locally
def test_one_wrong_fine_tune_of_many_does_not_end_the_others(bucket: Any, tmp_path: Path) -> None:
    documents = configured(bucket, tmp_path, render(OVERLAYS / "many"), MAX_STEPS="2")
    find(documents, "ConfigMap", "qlora-runs")["data"]["list"] = "--lora-r=0\n--run-id=good\n"
    outcome = Local(tmp_path / "pods").run(documents)  # three completions, two lines
    wrong, good, missing = outcome.pods
    assert (outcome.condition, outcome.reason) == ("Failed", "FailedIndexes")
    assert (wrong.exit_code, wrong.message) == (2, "error: --lora-r=0: needs at least 1\n")
    assert good.exit_code == 0
    assert missing.exit_code == 2
    assert "the list of fine-tunes has no line 3" in missing.message
    assert {k.split("/")[1] for k in keys(bucket) if k.endswith("model.safetensors")} == {"good"}


@over_http
@locally
def test_an_indexed_job_of_two_workers_ends_in_the_weights_of_one(
    bucket: Any, tmp_path: Path
) -> None:
    changes = {"MAX_STEPS": "4", "BATCH_SIZE": "1"}
    documents = configured(bucket, tmp_path, render(OVERLAYS / "multi-node"), **changes)
    here = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(unused_port()))]  # no DNS here
    here += [("OMP_NUM_THREADS", "1"), ("WORLD_SIZE", "2")]
    container(find(documents, "Job"))["env"] = [{"name": n, "value": v} for n, v in here]
    outcome = Local(tmp_path / "pods").run(documents)
    assert [pod.exit_code for pod in outcome.pods] == [0, 0], outcome.pods[-1].message
    assert outcome.condition == "Complete"
    alone = start(tmp_path / "alone", environment={"OMP_NUM_THREADS": "1"}, **changes)
    assert alone.wait(timeout=600) == 0
    (run,) = (path.parent for path in (tmp_path / "alone").glob("out/*/manifest.json"))
    assert published(bucket) == adapter_bytes(run)


@over_http
@locally
def test_a_night_without_new_data_trains_nothing(bucket: Any, tmp_path: Path) -> None:
    documents = configured(bucket, tmp_path, render(OVERLAYS / "nightly"), MAX_STEPS="2")
    job = {"kind": "Job", "metadata": {"name": "night"}}
    documents.append(find(documents, "CronJob")["spec"]["jobTemplate"] | job)

    def night(name: str) -> int:
        (pod,) = Local(tmp_path / name).run(documents).pods
        assert pod.exit_code == 0, pod.message
        return steps(pod)

    assert (night("first"), night("quiet")) == (2, 0)
    bucket.put_object(Key="corpus/new.txt", Body=b"From today the shop opens at nine. " * 20)
    assert night("busy") == 2
    assert len([k for k in keys(bucket) if k.endswith("adapter_model.safetensors")]) == 2


@over_http
@locally
def test_the_local_overlay_fills_its_bucket_before_it_trains(bucket: Any, tmp_path: Path) -> None:
    documents = render(OVERLAYS / "local")
    data = find(documents, "ConfigMap", "qlora-job")["data"]
    data["QLORA_DATA_URI"] = data["QLORA_DATA_URI"].replace("qlora", bucket.name)
    data["AWS_ENDPOINT_URL_S3"] = os.environ["AWS_ENDPOINT_URL_S3"]
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    find(documents, "Secret")["data"] = {
        name: base64.b64encode(os.environ[name].encode()).decode() for name in names
    }
    # In place of the training, which is the same as everywhere: what the trainer would find.
    look = "from trainer.storage import open_store; import os; "
    look += "print(*open_store(os.environ['QLORA_DATA_URI'], retry_minutes=0).list())"
    container(find(documents, "Job"))["command"] = ["python", "-c", look]
    (pod,) = Local(tmp_path / "pods").run(documents).pods
    assert pod.exit_code == 0, pod.message
    assert "questions.jsonl" in pod.lines[-1]
