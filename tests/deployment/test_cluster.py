"""The stand-in for a cluster does what the Job controller and the kubelet do, on shell commands."""

import time
from pathlib import Path

from support import cluster
from support.cluster import Documents, Local, Outcome, Pod, container, find, load


def job(script: str) -> Documents:
    """k8s/job.yaml with a shell script in place of the trainer."""
    documents = load(cluster.ROOT / "k8s/job.yaml")
    container(find(documents, "Job"))["command"] = ["sh", "-c", script]
    return documents


def run(documents: Documents, folder: Path) -> Outcome:
    return Local(folder, backoff_s=0.01).run(documents)


def test_failures_that_count_end_the_job_after_the_backoff_limit(tmp_path: Path) -> None:
    documents = job("echo no luck; exit 12")
    find(documents, "Job")["spec"]["backoffLimit"] = 2
    outcome = run(documents, tmp_path)
    assert [pod.exit_code for pod in outcome.pods] == [12, 12, 12]
    assert (outcome.reason, outcome.failed) == ("BackoffLimitExceeded", 3)
    assert outcome.pods[0].message == "no luck\n"


def test_each_pod_has_fresh_volumes_and_what_configmap_and_image_say(tmp_path: Path) -> None:
    documents = job('test ! -e "$HOME/left" && touch "$HOME/left"; env | sort; exit 12')
    find(documents, "Job")["spec"]["backoffLimit"] = 1
    first, second = run(documents, tmp_path).pods
    for pod in (first, second):
        found = dict(line.rstrip("\n").partition("=")[::2] for line in pod.lines)
        assert found["QLORA_DATA_URI"] == "s3://my-bucket/documents/"
        assert found["TMPDIR"] == str(tmp_path / pod.name / "scratch")
        assert found["HF_HOME"] == str(tmp_path / pod.name / "models")
        assert "AWS_ACCESS_KEY_ID" not in found  # the Secret is optional, and missing here
        assert (tmp_path / pod.name / "scratch" / "left").exists()


def test_an_eviction_terminates_and_kills_after_the_grace_period(tmp_path: Path) -> None:
    documents = job('trap "" TERM; echo ready; sleep 300; sleep 300')
    spec = find(documents, "Job")["spec"]
    spec["backoffLimit"] = 0
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    evicted: list[Pod] = []

    def evict(pod: Pod, _line: str) -> None:
        if not evicted:
            evicted.append(pod)
            container(find(documents, "Job"))["command"] = ["true"]
            pod.evict()

    started = time.monotonic()
    outcome = Local(tmp_path).run(documents, evict)
    assert [pod.exit_code for pod in outcome.pods] == [137, 0]
    assert (outcome.condition, outcome.failed) == ("Complete", 0)
    assert time.monotonic() - started < 120


def test_a_deadline_ends_the_pod_and_the_job(tmp_path: Path) -> None:
    documents = job("exec sleep 300")
    find(documents, "Job")["spec"]["activeDeadlineSeconds"] = 1
    outcome = run(documents, tmp_path)
    assert [pod.exit_code for pod in outcome.pods] == [143]
    assert (outcome.condition, outcome.reason) == ("Failed", "DeadlineExceeded")
