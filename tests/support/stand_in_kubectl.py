"""A `kubectl` for machines without a cluster: what it is handed is kept, and Jobs really run.

`kustomize` and every JSONPath are the real kubectl's work (REAL_KUBECTL); `apply` checks each
object against Kubernetes' schema and hands Jobs to `cluster.Local`, in a process of their own.
Objects are files below STAND_IN. STAND_IN_SETTINGS (JSON) is put over every job's ConfigMap: a
model that needs no GPU, and where the bucket's server is.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cluster import Documents, Local, Pod, find

STATE = Path(os.environ["STAND_IN"])
REAL = os.environ["REAL_KUBECTL"]
VERSION = "1.37"


def main(arguments: list[str]) -> int:
    with (STATE / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    verb, *rest = arguments
    if verb == "kustomize":
        return subprocess.call([REAL, *arguments])
    if verb == "apply":
        return apply(rest)
    if verb == "get":
        return get(rest)
    if verb == "logs":
        return logs(rest)
    if verb == "delete":
        for path in (*STATE.glob(f"*-{rest[1]}.json"), *STATE.glob(f"{rest[1]}-*.log")):
            path.unlink()
        shutil.rmtree(STATE / "volumes", ignore_errors=True)
        return 0
    if verb == "create" and rest[0] == "secret":
        return create_secret(rest[2:])
    if (verb, rest[0]) in (
        ("create", "namespace"),
        ("config", "set-context"),
        ("patch", "configmap"),
    ):
        return 0
    print(f"the stand-in has no answer to: kubectl {' '.join(arguments)}", file=sys.stderr)
    return 1


def create_secret(arguments: list[str]) -> int:
    name, *literals = arguments
    pairs = [text.removeprefix("--from-literal=").split("=", 1) for text in literals]
    keep({"kind": "Secret", "metadata": {"name": name}, "stringData": dict(pairs)})
    return 0


def apply(arguments: list[str]) -> int:
    path = arguments[arguments.index("-f") + 1]
    text = sys.stdin.read() if path == "-" else Path(path).read_text()
    documents = [d for d in yaml.safe_load_all(text) if d]
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)
    if "--dry-run=server" in arguments:
        return 0
    for document in documents:
        keep(document)
        print(f"{document['kind'].lower()}/{document['metadata']['name']} created")
    for job in (d for d in documents if d["kind"] == "Job"):
        subprocess.Popen(
            [sys.executable, __file__, "--controller", job["metadata"]["name"]],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=(STATE / "controller.err").open("a"),
        )
    return 0


def get(arguments: list[str]) -> int:
    """`get job NAME` and `get pods -l batch.kubernetes.io/job-name=NAME`, as JSON or a JSONPath."""
    form, _, path = arguments[arguments.index("-o") + 1].partition("=")
    if arguments[0] == "pods":
        seen = {"items": pods(arguments[arguments.index("-l") + 1].partition("=")[2])}
    elif not (seen := job(arguments[1])):
        return 0 if "--ignore-not-found" in arguments else 1
    if form == "json":
        print(json.dumps(seen))
        return 0
    if "items" in seen:  # kubectl takes an object with `items` apart before JSONPath sees it
        seen, path = {"pods": seen["items"]}, path.replace(".items", ".pods")
    wrapped = STATE / f"seen-{os.getpid()}.json"
    wrapped.write_text(
        json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}} | seen)
    )
    return subprocess.call(
        [REAL, "annotate", "--local", "-f", wrapped, "a=b", "-o", f"jsonpath={path}"]
    )


def logs(arguments: list[str]) -> int:
    """`logs -f POD` and `logs -f job/NAME`: every line to the end; refused before the start."""
    target = arguments[arguments.index("-f") + 1]
    name = target.removeprefix("job/")
    owner = name if target.startswith("job/") else name.rpartition("-")[0]
    shown, phase = 0, "Running"
    while phase == "Running":
        time.sleep(0.1)
        of_pod = [p for p in pods(owner) if name in (owner, p["metadata"]["name"])]
        if not of_pod:
            print(f"Error: {target} is waiting to start: ContainerCreating", file=sys.stderr)
            return 1
        phase = of_pod[0]["status"]["phase"]
        with (STATE / f"{of_pod[0]['metadata']['name']}.log").open() as log:
            lines = log.readlines()
        print(*lines[shown:], sep="", end="", flush=True)
        shown = len(lines)
    return 0


def keep(document: dict[str, Any]) -> None:
    path = STATE / f"{document['kind']}-{document['metadata']['name']}.json"
    path.write_text(json.dumps(document))


def read(name: str) -> dict[str, Any]:
    path = STATE / name
    return dict(json.loads(path.read_text())) if path.exists() else {}


def job(name: str) -> dict[str, Any]:
    found = read(f"Job-{name}.json")
    if not found:
        return {}
    found["metadata"]["uid"] = f"uid-of-{name}"
    return found | {"status": read(f"status-{name}.json").get("status", {})}


def pods(name: str) -> list[dict[str, Any]]:
    return list(read(f"status-{name}.json").get("pods", []))


def control(name: str) -> None:
    """Run the Job to its end; its status is a file that is always whole."""
    documents: Documents = [json.loads(path.read_text()) for path in STATE.glob("[A-Z]*.json")]
    documents = [d for d in documents if d["kind"] != "Job" or d["metadata"]["name"] == name]
    this = find(documents, "Job")
    for source in this["spec"]["template"]["spec"]["containers"][0]["envFrom"]:
        if "configMapRef" in source:
            settings = find(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
            settings.update(json.loads(os.environ["STAND_IN_SETTINGS"]))
    local, seen = Local(STATE / "volumes"), list[Pod]()

    def watch(pod: Pod, line: str) -> None:
        if pod not in seen:
            seen.append(pod)
        with (STATE / f"{pod.name}.log").open("a") as log:
            log.write(line)

    conditions: list[dict[str, str]] = []

    def run() -> None:
        condition, reason = "Failed", "TheStandInFailed"
        try:
            outcome = local.run(documents, watch)
            condition, reason = outcome.condition, outcome.reason
        finally:  # whoever follows it does not wait for ever
            end = {"type": condition, "status": "True", "reason": reason, "message": ""}
            conditions.append(end)

    thread = threading.Thread(target=run)
    thread.start()
    while True:
        over = not thread.is_alive()
        status = {"status": {"conditions": conditions}, "pods": [as_object(pod) for pod in seen]}
        fresh = STATE / f"status-{name}.new"
        fresh.write_text(json.dumps(status))
        fresh.replace(STATE / f"status-{name}.json")
        if over:
            return
        time.sleep(0.2)


def as_object(pod: Pod) -> dict[str, Any]:
    ended = pod.exit_code is not None
    state = {"terminated": {"exitCode": pod.exit_code, "message": pod.message}} if ended else {}
    phase = ("Failed" if pod.exit_code else "Succeeded") if ended else "Running"
    statuses = [{"name": "train", "state": state}]
    return {
        "metadata": {"name": pod.name},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


if __name__ == "__main__":
    if sys.argv[1] == "--controller":
        control(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
