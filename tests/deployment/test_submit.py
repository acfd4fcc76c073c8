"""k8s/submit and the README's Kubernetes section, word by word, without a cluster.

`kubectl` is tests/support/stand_in_kubectl.py: it keeps what it is handed and answers from the
local runner. Only the bucket's name, the server and the model (which would need a GPU) are put in.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.buckets import keys
from support.cluster import ROOT, Cluster, find, load
from support.jobs import QUESTIONS, variables
from support.readme import blocks, section

from trainer.runtime.env_file import write_env_file

over_http = pytest.mark.parametrize("bucket", ["http"], indirect=True)


class Terminal:
    """A checkout of its own with the stand-in as `kubectl`."""

    def __init__(self, folder: Path) -> None:
        if (real := shutil.which("kubectl")) is None:
            pytest.skip("kubectl is not installed")
        self.here, self.state = folder / "checkout", folder / "cluster"
        self.state.mkdir()
        (folder / "bin").mkdir()
        shutil.copytree(ROOT / "k8s", self.here / "k8s", symlinks=True)
        (self.here / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "settings.md", self.here / "docs")
        shim = folder / "bin" / "kubectl"
        shim.write_text(
            f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/stand_in_kubectl.py "$@"\n'
        )
        shim.chmod(0o755)
        small = variables(folder, MAX_STEPS="2")
        for name in ("QLORA_DATA_URI", "QLORA_OUTPUT_URI", "QLORA_SCRATCH_DIR"):
            del small[name]
        small["AWS_ENDPOINT_URL_S3"] = os.environ.get("AWS_ENDPOINT_URL_S3", "")
        self.environment = os.environ | {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "STAND_IN": str(self.state),
            "STAND_IN_SETTINGS": json.dumps(small),
            "REAL_KUBECTL": real,
            "SUBMIT_POLL_S": "0.2",
        }

    def type(self, text: str) -> "subprocess.CompletedProcess[str]":
        command = ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.run(
            command,
            cwd=self.here,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=300,
        )

    def calls(self) -> list[list[str]]:
        """What kubectl was handed."""
        return [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(p.read_text()) for p in sorted(self.state.glob(f"{kind}-*.json"))]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.mark.s3
@over_http
def test_the_readme_s_commands_fine_tune_twice(bucket: Any, terminal: Terminal) -> None:
    for prefix, records in (("documents/", QUESTIONS), ("faq/", QUESTIONS[:30])):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        bucket.put_object(Key=f"{prefix}questions.jsonl", Body=lines.encode())
    manifest = terminal.here / "k8s/base/job.yaml"
    edited = re.sub("my-bucket(.*# EDIT)", rf"{bucket.name}\1", manifest.read_text())
    assert edited.count(bucket.name) == 2  # the two lines
    manifest.write_text(edited)
    secret, submit = blocks("On Kubernetes")
    (plainly,) = blocks("With kubectl alone", "kubernetes")
    typed = "".join([secret, plainly, submit])
    done = terminal.type(typed.replace("my-bucket", bucket.name))
    assert done.returncode == 0, done.stdout + done.stderr
    finished = [key for key in keys(bucket) if re.fullmatch(r"models/[^/]+/manifest.json", key)]
    assert len(finished) == 2
    assert "is done" in done.stderr
    plain, submitted = sorted(terminal.objects("Job"), key=lambda job: len(job["metadata"]["name"]))
    assert plain["metadata"]["name"] == "qlora-job"
    assert re.fullmatch(r"faq-\d{8}-\d{6}-[0-9a-f]{4}", submitted["metadata"]["name"])
    verbs = [" ".join(call[:2]) for call in terminal.calls()]
    assert verbs.index("apply --dry-run=server") < len(verbs) - verbs[::-1].index("apply -f") - 1


def test_submit_names_job_and_settings_alike_and_ends_with_the_job_s_code(
    terminal: Terminal,
) -> None:
    done = terminal.type(
        "k8s/submit 'wrong' QLORA_LORA_R=0 QLORA_DATA_URI=\"s3://bucket/it's here/\""
    )
    assert done.returncode == 2, done.stderr
    assert "error: QLORA_LORA_R=0: needs at least 1" in done.stdout
    assert "Failed PodFailurePolicy" in done.stderr
    (job,) = terminal.objects("Job")
    name = job["metadata"]["name"]
    data = {c["metadata"]["name"]: c["data"] for c in terminal.objects("ConfigMap")}[name]
    assert data["QLORA_DATA_URI"] == "s3://bucket/it's here/"
    assert data["QLORA_OUTPUT_URI"] == "s3://my-bucket/models/"  # as the base says
    (source, *_) = job["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert source == {"configMapRef": {"name": name}}
    (patch,) = (call for call in terminal.calls() if call[0] == "patch")
    owner = json.loads(patch[-1])["metadata"]["ownerReferences"][0]
    assert (owner["name"], owner["uid"]) == (name, f"uid-of-{name}")


def test_submit_reads_the_file_that_init_wrote_and_what_stands_beside_it_beats_it(
    terminal: Terminal,
) -> None:
    file = terminal.here / "faq.env"
    values = {"QLORA_DATA_URI": "s3://bucket/a b/", "QLORA_OUTPUT_URI": "s3://bucket/out/"}
    write_env_file(file, values | {"QLORA_LORA_R": "8"}, ["of a FAQ"])
    done = terminal.type("k8s/submit faq --env-file faq.env QLORA_LORA_R=0")
    assert "error: QLORA_LORA_R=0: needs at least 1" in done.stdout
    (settings,) = (c["data"] for c in terminal.objects("ConfigMap") if "faq" in str(c["metadata"]))
    assert settings.items() >= (values | {"QLORA_LORA_R": "0"}).items()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "needs a name"),
        ("x --env-file gone.env", "--env-file gone.env: there is no such file"),
        ("x QLORA_LORA_RR=4", "QLORA_LORA_RR is not a setting; did you mean QLORA_LORA_R?"),
        ("x EPOCS=4", "EPOCS is not a setting; did you mean QLORA_EPOCHS?"),
        ("x QLORA_EPOCHS", "'QLORA_EPOCHS' is not KEY=VALUE"),
        ("x HF_TOKEN=abc", "HF_TOKEN belongs in the Secret qlora-job"),
        ("Big QLORA_EPOCHS=4", "the name 'Big' needs small letters"),
        ("x 'QLORA_RUN_ID=a\nb'", "QLORA_RUN_ID has more than one line"),
    ],
)
def test_what_cannot_be_right_is_refused_before_the_cluster_is_asked(
    arguments: str, sentence: str, terminal: Terminal
) -> None:
    done = terminal.type(f"k8s/submit {arguments}")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "abc" not in done.stderr
    assert not (terminal.state / "calls").exists()


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [("t5-spot", "there is no overlay t5-spot"), ("nightly", "nightly holds no Job to follow")],
)
def test_an_overlay_that_cannot_be_followed_is_refused(
    overlay: str, sentence: str, terminal: Terminal
) -> None:
    done = terminal.type(f"OVERLAY={overlay} k8s/submit x")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert terminal.objects("Job") == []


def test_following_ends_when_the_job_is_deleted(terminal: Terminal) -> None:
    manifest = terminal.here / "k8s/base/job.yaml"
    deleted = terminal.here / "deleted"
    script = f"echo; for n in $(seq 3000); do test -e {deleted} && exit; sleep .1; done"
    waiting = f"image: qlora-job:cu130\n          command: [sh, -c, '{script}']"
    manifest.write_text(manifest.read_text().replace("image: qlora-job:cu130", waiting))
    delete = f"""
        until grep -q '"logs"' "$STAND_IN/calls"; do sleep .1; done 2>/dev/null
        kubectl delete job "$(cd "$STAND_IN" && ls Job-x-* | sed 's/Job-//; s/.json//')"
        touch {deleted}
    """
    done = terminal.type(f"({delete}) & k8s/submit x")
    assert done.returncode == 1, done.stderr
    assert "was deleted" in done.stderr


def test_a_refusal_of_the_cluster_starts_nothing(terminal: Terminal) -> None:
    manifest = terminal.here / "k8s/base/job.yaml"
    manifest.write_text(manifest.read_text().replace("backoffLimit: 6", "backoffLimit: six"))
    done = terminal.type("k8s/submit x")
    assert done.returncode == 2
    assert "the cluster refused x-" in done.stderr
    assert terminal.objects("Job") == []


def test_the_cases_for_a_cluster_are_driven_through_kubectl(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in terminal.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QLORA_TEST_IMAGE", "qlora-job:cpu")
    documents = load(ROOT / "k8s/job.yaml")
    find(documents, "ConfigMap")["data"]["QLORA_LORA_R"] = "0"
    outcome = Cluster().run(documents)
    (pod,) = outcome.pods
    assert (outcome.condition, outcome.reason) == ("Failed", "PodFailurePolicy")
    assert (pod.exit_code, pod.message) == (2, "error: QLORA_LORA_R=0: needs at least 1\n")


def test_every_overlay_is_on_the_page_of_kubernetes() -> None:
    text = section("Overlays", "kubernetes")
    for overlay in sorted(
        p.parent.name for p in (ROOT / "k8s/overlays").glob("*/kustomization.yaml")
    ):
        assert f"| `{overlay}` |" in text
