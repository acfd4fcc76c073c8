"""A Job run from its manifest: by local processes as the Job controller would, or by a cluster.

`Local` is for machines without a cluster. It keeps what decides whether a run survives: variables
from ConfigMap and Secret, volumes that are new for every pod, init containers, podFailurePolicy,
back-off, eviction and deadline with SIGTERM, grace and SIGKILL, termination messages. The image is
this checkout and its Dockerfile's variables; where a volume is mounted at /tmp, every path below it
means that volume's folder. Indexed pods run side by side as `parallelism` says. It does not look at
resources, nodes and networks. /dev/termination-log is missing, so the message is the fallback to
the log's end.

`Cluster` hands the same manifest to kubectl.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
FALLBACK_BYTES, FALLBACK_LINES = 2048, 80  # of FallbackToLogsOnError
BACKOFF_S, LONGEST_BACKOFF_S = 10, 360  # before the second attempt, doubled up to

Documents = list[dict[str, Any]]


@dataclass
class Pod:
    """One attempt. `exit_code` is None when a cluster has deleted the pod before it was read."""

    name: str
    grace_s: int
    lines: list[str] = field(default_factory=list)
    exit_code: int | None = None
    message: str = ""
    disrupted: bool = False
    process: Any = None

    def evict(self) -> None:
        """As the Eviction API and node shutdown do."""
        self.disrupted = True
        self.stop()

    def stop(self) -> None:
        """SIGTERM now, SIGKILL after the grace period."""
        self.process.send_signal(signal.SIGTERM)
        killer = threading.Timer(self.grace_s, self._kill)
        killer.daemon = True
        killer.start()

    def _kill(self) -> None:
        """Everything in the container, not only its first process."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Outcome:
    """How a Job ended: its last condition, and the pods in their order."""

    condition: str
    reason: str
    failed: int
    pods: list[Pod]


def load(*paths: Path) -> Documents:
    """The documents of manifests."""
    return [d for path in paths for d in yaml.safe_load_all(path.read_text()) if d]


def render(folder: Path) -> Documents:
    """The documents of a kustomization. Skips the test that asks where kubectl is missing."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    text = subprocess.check_output(["kubectl", "kustomize", str(folder)], text=True)
    return [d for d in yaml.safe_load_all(text) if d]


def find(documents: Documents, kind: str, name: str | None = None) -> dict[str, Any]:
    """The one document of this kind and name."""
    (found,) = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    return found


def container(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job's own container."""
    only: dict[str, Any]
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def ignore(_pod: Pod, _line: str) -> None:
    """Watches nothing."""


class Local:
    """The Job controller and the kubelet, as far as one run can tell."""

    def __init__(self, folder: Path, backoff_s: float = BACKOFF_S) -> None:
        self._folder = folder
        self._backoff_s = backoff_s

    def run(self, documents: Documents, watch: Callable[[Pod, str], None] = ignore) -> Outcome:
        """Run the Job among `documents` to its end; `watch` sees every line of every pod."""
        self._documents, self._watch = documents, watch
        self._job = find(documents, "Job")
        self._deadline = time.monotonic() + self._job["spec"].get("activeDeadlineSeconds", 1e9)
        self._pods: list[Pod] = []
        self._failed, self._over = 0, False
        spec = self._job["spec"]
        if spec.get("completionMode") != "Indexed":
            return self._outcome(self._attempts(None, spec.get("backoffLimit", 6)))
        limit = spec.get("backoffLimitPerIndex", spec.get("backoffLimit", 6))
        with ThreadPoolExecutor(spec["parallelism"]) as at_once:
            ends = list(at_once.map(lambda i: self._attempts(i, limit), range(spec["completions"])))
        self._pods.sort(key=lambda pod: pod.name)
        if "backoffLimitPerIndex" in spec:
            return self._outcome("FailedIndexes" if any(ends) else None)
        return self._outcome(next(filter(None, ends), None))

    def pass_time(self, seconds: float) -> None:
        """As if `seconds` had gone by for the Job's deadline."""
        self._deadline -= seconds
        if time.monotonic() >= self._deadline:
            self._stop_all()

    def _outcome(self, reason: str | None) -> Outcome:
        condition = "Failed" if reason else "Complete"
        return Outcome(condition, reason or "CompletionsReached", self._failed, self._pods)

    def _attempts(self, index: int | None, limit: int) -> str | None:
        """Pods until one succeeds; the reason when none will."""
        failed = 0
        while True:
            pod = self._attempt(index)
            if time.monotonic() >= self._deadline:
                return "DeadlineExceeded"
            if pod.exit_code == 0:
                return None
            action = self._action(pod)
            if action in ("FailJob", "FailIndex"):
                self._failed += 1
                if action == "FailJob":
                    self._end_all()
                return "PodFailurePolicy"
            if self._over:
                return None
            if action == "Count":
                failed, self._failed = failed + 1, self._failed + 1
                if failed > limit:
                    return "BackoffLimitExceeded"
                time.sleep(min(self._backoff_s * 2 ** (failed - 1), LONGEST_BACKOFF_S))

    def _end_all(self) -> None:
        """The Job has failed: no pod of it goes on."""
        self._over = True
        self._stop_all()

    def _stop_all(self) -> None:
        for pod in self._pods:
            if pod.process.poll() is None:
                pod.stop()

    def _action(self, pod: Pod) -> str:
        for rule in self._job["spec"].get("podFailurePolicy", {}).get("rules", []):
            conditions = [c["type"] for c in rule.get("onPodConditions", [])]
            if pod.disrupted and "DisruptionTarget" in conditions:
                return str(rule["action"])
            codes = rule.get("onExitCodes")
            if codes and (pod.exit_code in codes["values"]) == (codes["operator"] == "In"):
                return str(rule["action"])
        return "Count"

    def _attempt(self, index: int | None) -> Pod:
        """One pod from its first init container to the end of its container."""
        template = self._job["spec"]["template"]["spec"]
        name = self._job["metadata"]["name"]
        host = name if index is None else f"{name}-{index}"
        name = f"{host}-{sum(pod.name.startswith(host + '-') for pod in self._pods)}"
        pod = Pod(name, template["terminationGracePeriodSeconds"])
        self._pods.append(pod)
        volumes = self._volumes(template.get("volumes", []), self._folder / name)
        for one in (*template.get("initContainers", []), *template["containers"]):
            pod.process = self._start(one, volumes, index, host)
            timer = threading.Timer(max(0, self._deadline - time.monotonic()), pod.stop)
            timer.start()
            for line in pod.process.stdout:
                pod.lines.append(line)
                self._watch(pod, line)
            code = pod.process.wait()
            timer.cancel()
            pod.exit_code = code if code >= 0 else 128 - code
            if pod.exit_code:
                tail = "".join(pod.lines[-FALLBACK_LINES:]).encode()
                pod.message = tail[-FALLBACK_BYTES:].decode(errors="replace")
                break
        return pod

    def _volumes(self, volumes: list[dict[str, Any]], folder: Path) -> dict[str, Path]:
        """A new folder for each volume, with the files of a ConfigMap."""
        for volume in volumes:
            (folder / volume["name"]).mkdir(parents=True)
            if "configMap" in volume:
                data = find(self._documents, "ConfigMap", volume["configMap"]["name"])["data"]
                for key, text in data.items():
                    (folder / volume["name"] / key).write_text(text)
        return {volume["name"]: folder / volume["name"] for volume in volumes}

    def _start(
        self, container: dict[str, Any], volumes: dict[str, Path], index: int | None, host: str
    ) -> "subprocess.Popen[str]":
        mounts = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
        variables = image_variables() | {"HOSTNAME": host} | dict(self._variables(container))
        if index is not None:
            variables["JOB_COMPLETION_INDEX"] = str(index)
        variables = {name: inside(value, mounts) for name, value in variables.items()}
        command = container.get("command", ["python", "entrypoint.py"]) + container.get("args", [])
        return subprocess.Popen(
            [inside(word, mounts) for word in command],
            cwd=ROOT,
            env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _variables(self, container: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", []):
            for kind in ("ConfigMap", "Secret"):
                reference = source.get(kind[0].lower() + kind[1:] + "Ref")
                yield from self._values(kind, reference) if reference else ()
        yield from ((entry["name"], entry["value"]) for entry in container.get("env", []))

    def _values(self, kind: str, reference: dict[str, Any]) -> Iterator[tuple[str, str]]:
        names = [d["metadata"]["name"] for d in self._documents if d["kind"] == kind]
        if reference["name"] not in names and reference.get("optional"):
            return
        found = find(self._documents, kind, reference["name"])
        encoded = found.get("data", {}) if kind == "Secret" else {}
        yield from ((name, base64.b64decode(value).decode()) for name, value in encoded.items())
        yield from found.get("stringData", found["data"] if kind == "ConfigMap" else {}).items()


def image_variables() -> dict[str, str]:
    """The image's ENV, as far as it says where things are written."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    pairs = re.findall(r"(\w+)=(/tmp\S*)", " ".join(re.findall(r"(?m)^ENV (.*)$", text)))
    return dict(pairs)


def inside(value: str, mounts: Mapping[str, Path]) -> str:
    """`value`, where it is a path in a volume, as the path of that volume's folder."""
    for mount in sorted(mounts, key=len, reverse=True):
        if value == mount or value.startswith(mount + "/"):
            return str(mounts[mount]) + value[len(mount) :]
    return value


class Cluster:
    """The cluster of kubectl's context and namespace. QLORA_TEST_IMAGE is the CPU image there."""

    def run(self, documents: Documents, watch: Callable[[Pod, str], None] = ignore) -> Outcome:
        """As `Local.run`. Evicted pods go away: their exit code stays unknown."""
        job = find(documents, "Job")
        name = job["metadata"]["name"]
        container(job).update(image=os.environ["QLORA_TEST_IMAGE"], resources={})
        old = ["delete", "job,configmap", name, "--ignore-not-found", "--cascade=foreground"]
        kubectl(*old)
        kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))
        pods: dict[str, _ClusterPod] = {}
        while True:
            status = self._get("job", name)["status"]  # before the pods: then none is missed
            ends = [c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed")]
            for found in self._get("pods", "-l", f"batch.kubernetes.io/job-name={name}")["items"]:
                if found["status"]["phase"] != "Pending":
                    pod = _ClusterPod(found["metadata"]["name"], grace_s=0)
                    pod = pods.setdefault(pod.name, pod)
                    pod.follow(watch)
                    pod.read(found)
            if ends:
                failed = status.get("failed", 0)
                return Outcome(ends[0]["type"], ends[0]["reason"], failed, list(pods.values()))
            time.sleep(1)

    def _get(self, *what: str) -> dict[str, Any]:
        return dict(json.loads(kubectl("get", *what, "-o", "json")))


class _ClusterPod(Pod):
    def follow(self, watch: Callable[[Pod, str], None]) -> None:
        """The log to the container's end, once."""
        if self.lines:
            return
        command = ["kubectl", "logs", "-f", self.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.lines.append(line)
                watch(self, line)

    def read(self, found: dict[str, Any]) -> None:
        """Exit code and message, once they are there."""
        (status,) = found["status"].get("containerStatuses", [{}])
        ended = status.get("state", {}).get("terminated", {})
        self.exit_code, self.message = ended.get("exitCode"), ended.get("message", "")

    def evict(self) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": self.name}}
        namespace = kubectl("config", "view", "--minify", "-o", "jsonpath={..namespace}")
        path = f"/api/v1/namespaces/{namespace or 'default'}/pods/{self.name}/eviction"
        kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))


def kubectl(*arguments: str, input: str | None = None) -> str:
    """Its output; raises CalledProcessError when it fails."""
    return subprocess.run(
        ["kubectl", *arguments], input=input, text=True, check=True, stdout=subprocess.PIPE
    ).stdout
