"""The manifests: what schemas and scanners find, and what they miss.

Overlays are rendered by kubectl; without it only k8s/job.yaml and the base's files are looked at.
"""

import copy
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubeflow_trainer_api.models
import kubernetes_validate
import pytest
import yaml
from support.cluster import Documents, container, find, load, render
from support.devices import LLAMA_3_70B

from trainer.errors import JobError
from trainer.planner.gpus import nodes_with
from trainer.planner.memory_plan import MemoryPlan, host_bytes
from trainer.planner.schedule import STEP_BLOCKS
from trainer.runtime.device import GIB
from trainer.runtime.selftest import needed_for_pinned
from trainer.settings import Settings, options

ROOT = Path(__file__).parent.parent.parent
K8S = ROOT / "k8s"
OVERLAYS = sorted(p.parent.name for p in (K8S / "overlays").glob("*/kustomization.yaml"))
SOURCES = ["job.yaml", *OVERLAYS, "metrics"]
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
WITHOUT_SCHEMA = {
    "ResourceFlavor",
    "ClusterQueue",
    "LocalQueue",
    "PodMonitor",
    "JobSet",
    "TrainJob",
    "TrainingRuntime",
}  # not Kubernetes' own
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
HOPELESS = {e.exit_code for e in JobError.__subclasses__() if not e.retry_helps}
# A T4 node of 4 cores and 16 GB (n1-standard-4 has 15): what the kubelet leaves, less the daemons.
NODE_CORES, NODE_GIB = 3.9 - 0.5, 12.3 - 0.6
# Llama-2-7B with every layer recomputed, at what a T4 does in fp16.
FLOPS_PER_TOKEN, T4_FLOPS = 40e9, 20e12
CHECKPOINT_BYTES, UPLOAD_BYTES_PER_S = 200e6, 10e6  # all linear layers at rank 8, a slow bucket


@cache
def _rendered(source: str) -> str:
    if source == "job.yaml":
        return (K8S / source).read_text()
    if source != "metrics":
        return yaml.safe_dump_all(render(K8S / "overlays" / source))
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(K8S, scratch, dirs_exist_ok=True, symlinks=True)
        wanted = {"resources": ["base"], "components": ["components/metrics"]}
        Path(scratch, "kustomization.yaml").write_text(yaml.safe_dump(wanted))
        return yaml.safe_dump_all(render(Path(scratch)))


def documents(source: str) -> Documents:
    return [d for d in yaml.safe_load_all(_rendered(source)) if d]


def jobs(source: str) -> list[dict[str, Any]]:
    """Every Job spec, also that of a CronJob, a JobSet or Kubeflow's runtime."""
    found = documents(source)
    inner = [d["spec"]["jobTemplate"] for d in found if d["kind"] == "CronJob"]
    sets = [d["spec"] for d in found if d["kind"] == "JobSet"]
    sets += [d["spec"]["template"]["spec"] for d in found if d["kind"] == "TrainingRuntime"]
    inner += [replicated["template"] for one in sets for replicated in one["replicatedJobs"]]
    return [job["spec"] for job in [*(d for d in found if d["kind"] == "Job"), *inner]]


def pods(source: str) -> list[dict[str, Any]]:
    """Every pod spec."""
    deployed = [d["spec"] for d in documents(source) if d["kind"] == "Deployment"]
    return [owner["template"]["spec"] for owner in [*jobs(source), *deployed]]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("source", SOURCES)
def test_every_kubernetes_from_1_29_to_1_37_knows_every_field(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = kubernetes_validate.utils
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    known = {utils.major_minor(v) for v in kubernetes_validate.utils.all_versions()}
    assert set(VERSIONS) <= known
    for document in documents(source):
        for version in VERSIONS:
            if document["kind"] not in WITHOUT_SCHEMA:
                assert utils.validate(document, version, strict=True) == version


def test_a_misspelt_field_would_be_found() -> None:
    job = find(documents("job.yaml"), "Job")
    job["spec"]["template"]["spec"]["restartPolitics"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.29", strict=True)


# What Pod Security's level "restricted" asks of a Linux pod:
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
VOLUMES |= {"projected", "secret"}


def unrestricted(pod: dict[str, Any]) -> Iterator[str]:
    whole = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", []):
        if (set(volume) - {"name"}) - VOLUMES:
            yield f"volume {volume['name']}"
    if whole.get("sysctls") or whole.get("seLinuxOptions") or whole.get("appArmorProfile"):
        yield "kernel options"
    for one in containers(pod):
        own = one.get("securityContext", {})
        merged = whole | own
        if (
            own.get("privileged")
            or own.get("procMount")
            or own.get("allowPrivilegeEscalation", True)
        ):
            yield f"{one['name']}: privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            yield f"{one['name']}: capabilities"
        if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
            yield f"{one['name']}: root"
        if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{one['name']}: seccomp"
        if any("hostPort" in port for port in one.get("ports", [])):
            yield f"{one['name']}: host port"


@pytest.mark.parametrize("source", SOURCES)
def test_every_pod_is_allowed_in_a_restricted_namespace(source: str) -> None:
    for pod in pods(source):
        assert list(unrestricted(pod)) == []
        assert pod["automountServiceAccountToken"] is False
        assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in containers(pod))


def test_checkov_finds_only_what_has_a_reason_beside_it(tmp_path: Path) -> None:
    config = K8S / "checkov.yaml"
    skipped = [line for line in config.read_text().splitlines() if "CKV" in line]
    assert skipped and all(re.search(r"CKV\w+ +# \w.{20}", line) for line in skipped)
    checkov = shutil.which("checkov")
    if checkov is None:
        pytest.skip("checkov is not installed (pipx install checkov)")
    for source in SOURCES:
        (tmp_path / f"{Path(source).stem}.yaml").write_text(_rendered(source))
    command = [
        checkov,
        "--config-file",
        config,
        "--skip-download",
        "--quiet",
        "--compact",
        "-d",
        tmp_path,
    ]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True)
    summary = json.loads(done.stdout)["summary"]
    assert (done.returncode, summary["failed"]) == (0, 0), done.stdout
    assert summary["passed"] > 100


def faults(job: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a Job's spec although its schema allows it."""
    pod = job["template"]["spec"]
    rules = job["podFailurePolicy"]["rules"]
    if pod["restartPolicy"] != "Never":
        yield "podFailurePolicy needs restartPolicy Never"
    if rules[0].get("onPodConditions", [{}])[0].get("type") != "DisruptionTarget":
        yield "an eviction is judged by its exit code"
    for rule in rules:
        codes = rule.get("onExitCodes", {"operator": "NotIn", "values": []})
        if codes["operator"] == "In" and 0 in codes["values"]:
            yield "exit code 0 never matches"
        if codes["values"] != sorted(set(codes["values"])):
            yield "exit codes are not in order"
        if codes.get("containerName", pod["containers"][0]["name"]) != pod["containers"][0]["name"]:
            yield "a rule for a container that is not there"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in job:
            yield "FailIndex needs backoffLimitPerIndex"
    for one in containers(pod):
        requests, limits = one["resources"]["requests"], one["resources"]["limits"]
        for name, amount in (*requests.items(), *limits.items()):
            if not QUANTITY.fullmatch(str(amount)):
                yield f"{name}: {amount} is no quantity"
            if name == "nvidia.com/gpu" and not str(amount).isdigit():
                yield f"{name}: {amount} is not a whole GPU"
        if requests.get("nvidia.com/gpu") != limits.get("nvidia.com/gpu"):
            yield "GPUs are not shared: request and limit differ"
    for volume in pod.get("volumes", []):
        size = volume.get("emptyDir", {}).get("sizeLimit", "1")
        if not QUANTITY.fullmatch(size):
            yield f"{volume['name']}: {size} is no quantity"
    if pod["terminationGracePeriodSeconds"] < 2 * seconds_to_stop():
        yield "the grace period is too short for a step, a save and its push"


def seconds_to_stop() -> float:
    """A step with the default settings on a T4, then a checkpoint on its way to the bucket."""
    settings = Settings.read({}, {}, trains=False)
    step = max(STEP_BLOCKS) * settings.max_length * FLOPS_PER_TOKEN / T4_FLOPS
    return step + CHECKPOINT_BYTES / UPLOAD_BYTES_PER_S


@pytest.mark.parametrize("source", SOURCES)
def test_what_schemas_miss_is_right(source: str) -> None:
    assert jobs(source)
    for job in jobs(source):
        assert list(faults(job)) == []


Spoil = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda j, p: p.update(restartPolicy="OnFailure"), "Never"),
        (lambda j, p: j["podFailurePolicy"]["rules"].reverse(), "judged by its exit code"),
        (
            lambda j, p: j["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"].append(0),
            "0 never",
        ),
        (lambda j, p: j["podFailurePolicy"]["rules"][1].update(action="FailIndex"), "PerIndex"),
        (
            lambda j, p: j["podFailurePolicy"]["rules"][2]["onExitCodes"]["values"].reverse(),
            "order",
        ),
        (lambda j, p: p["containers"][0].update(name="other"), "not there"),
        (lambda j, p: p["containers"][0]["resources"]["limits"].update(memory="16GB"), "16GB"),
        (lambda j, p: gpu(p, "0.5"), "not a whole GPU"),
        (lambda j, p: p["volumes"][0]["emptyDir"].update(sizeLimit="15 Gi"), "no quantity"),
        (lambda j, p: p.update(terminationGracePeriodSeconds=30), "too short"),
    ],
)
def test_each_of_these_mistakes_is_noticed(spoil: Spoil, found: str) -> None:
    (job,) = copy.deepcopy(jobs("job.yaml"))
    spoil(job, job["template"]["spec"])
    assert any(found in fault for fault in faults(job))


def gpu(pod: dict[str, Any], amount: str) -> None:
    for part in ("requests", "limits"):
        pod["containers"][0]["resources"][part]["nvidia.com/gpu"] = amount


@pytest.mark.parametrize("source", SOURCES)
def test_the_exit_codes_that_end_the_job_are_those_where_a_retry_does_not_help(source: str) -> None:
    for job in jobs(source):
        _, hopeless, rest = job["podFailurePolicy"]["rules"]
        assert set(hopeless["onExitCodes"]["values"]) == HOPELESS == {2, 10, 11, 13, 14}
        assert set(rest["onExitCodes"]["values"]) == HOPELESS
        assert (rest["action"], rest["onExitCodes"]["operator"]) == ("Count", "NotIn")


def test_the_job_fits_a_t4_node_of_four_cores_and_16_gb() -> None:
    spec = find(documents("job.yaml"), "Job")["spec"]["template"]["spec"]
    resources = container({"spec": {"template": {"spec": spec}}})["resources"]
    assert float(resources["requests"]["cpu"]) <= NODE_CORES
    assert gib(resources["requests"]["memory"]) <= NODE_GIB
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    disks = [v["emptyDir"] for v in spec["volumes"] if "medium" not in v["emptyDir"]]
    room = sum(gib(disk["sizeLimit"]) for disk in disks)
    assert room <= gib(resources["limits"]["ephemeral-storage"])
    model_bytes = 2 * 6_738_415_616  # Llama-2-7B in 16 bits
    assert gib(resources["requests"]["ephemeral-storage"]) > model_bytes / GIB


def test_a_70b_finds_the_memory_that_is_pinned_for_it_on_the_smallest_nodes_of_its_overlay() -> (
    None
):
    spec = find(documents("t4-70b"), "Job")["spec"]["template"]["spec"]
    resources = container({"spec": {"template": {"spec": spec}}})["resources"]
    pinned = host_bytes(LLAMA_3_70B, MemoryPlan(0, hosted_layers=LLAMA_3_70B.layers), 512)
    memory = gib(resources["limits"]["memory"]) * GIB
    assert memory >= needed_for_pinned(pinned)
    wanted = json.dumps(spec["affinity"])
    assert all(f'"{node}"' in wanted for node in nodes_with("Tesla T4", int(memory)))
    assert gib(resources["requests"]["ephemeral-storage"]) > 2 * LLAMA_3_70B.parameters / GIB


def gib(quantity: str) -> float:
    return float(quantity.removesuffix("Gi"))


@pytest.mark.parametrize("source", SOURCES)
def test_every_key_of_the_configmap_is_a_documented_setting_with_a_value_it_takes(
    source: str,
) -> None:
    data = find(documents(source), "ConfigMap", "qlora-job")["data"]
    Settings.read({}, data)  # unknown keys and wrong values are SettingsErrors
    page = (ROOT / "docs" / "settings.md").read_text()
    known = {option.env for option in options()}
    for key, value in data.items():
        assert isinstance(value, str), key
        assert key in known or key.startswith(("AWS_", "HF_")), key
        assert key not in known or f"| `{key}` |" in page
        assert not re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY", key)


@pytest.mark.parametrize("source", SOURCES)
def test_every_image_of_others_has_a_digest(source: str) -> None:
    for pod in pods(source):
        for one in containers(pod):
            ours = one["image"].startswith("qlora-job:")
            assert ours or re.search(r"@sha256:[0-9a-f]{64}$", one["image"])


def test_job_yaml_alone_and_the_base_are_one_file() -> None:
    assert (K8S / "job.yaml").resolve() == (K8S / "base/job.yaml").resolve()
    assert [d["kind"] for d in documents("job.yaml")] == ["ServiceAccount", "ConfigMap", "Job"]


def test_the_network_policy_selects_the_pods_and_lets_out_names_and_https_only() -> None:
    (policy,) = load(K8S / "base/networkpolicy.yaml")
    labels = find(documents("job.yaml"), "Job")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["ingress"] == []
    wide = [r for r in policy["spec"]["egress"] if "0.0.0.0/0" in json.dumps(r)]
    assert [port["port"] for rule in wide for port in rule["ports"]] == [443]
    assert "169.254.0.0/16" in wide[0]["to"][0]["ipBlock"]["except"]


def test_each_line_of_the_list_of_many_is_one_completion_that_the_job_understands() -> None:
    job = find(documents("many"), "Job")["spec"]
    lines = find(documents("many"), "ConfigMap", "qlora-runs")["data"]["list"].splitlines()
    assert job["completions"] == len(lines)
    base = find(documents("many"), "ConfigMap", "qlora-job")["data"]
    for line in lines:
        flags = dict(word.removeprefix("--").split("=", 1) for word in line.split())
        Settings.read({name.replace("-", "_"): value for name, value in flags.items()}, base)
        assert {f"--{name}" for name in flags} <= {option.flag for option in options()}


def test_the_queue_covers_every_resource_that_the_job_requests() -> None:
    found = documents("kueue")
    job, queue = find(found, "Job"), find(found, "LocalQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert job["spec"]["suspend"] is True
    (group,) = find(found, "ClusterQueue")["spec"]["resourceGroups"]
    assert set(group["coveredResources"]) == set(container(job)["resources"]["requests"])


def test_the_nightly_job_is_the_base_s() -> None:
    (nightly,) = jobs("nightly")
    assert nightly == find(documents("job.yaml"), "Job")["spec"]
    assert "immutable" not in find(documents("nightly"), "ConfigMap")


def test_prometheus_finds_the_port_and_the_dashboard_names_real_metrics() -> None:
    found = documents("metrics")
    (port,) = container(find(found, "Job"))["ports"]
    settings = Settings.read({}, find(found, "ConfigMap", "qlora-job")["data"])
    assert port["containerPort"] == settings.metrics_port
    (endpoint,) = find(found, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]
    dashboard = find(found, "ConfigMap", "qlora-job-dashboard")["data"]["dashboard.json"]
    named = set(re.findall(r"qlora_\w+", dashboard))
    served = set(
        re.findall(r'"(qlora_\w+)"', (ROOT / "trainer/monitoring/prometheus.py").read_text())
    )
    assert served - {"qlora_run"} == named
    assert json.loads(dashboard)["panels"]


MODELS = {
    "JobSet": "JobsetV1alpha2JobSet",
    "TrainJob": "TrainerV1alpha1TrainJob",
    "TrainingRuntime": "TrainerV1alpha1TrainingRuntime",
}


@pytest.mark.parametrize("source", ["jobset", "trainjob"])
def test_kubeflow_s_models_keep_every_field_of_jobset_and_trainjob(source: str) -> None:
    found = [d for d in documents(source) if d["kind"] in MODELS]
    assert found
    for document in found:
        model = getattr(kubeflow_trainer_api.models, MODELS[document["kind"]])
        assert list(lost(document, model.from_dict(document).to_dict())) == []


def test_a_misspelt_field_of_a_jobset_would_be_found() -> None:
    document = find(documents("jobset"), "JobSet")
    document["spec"]["replicatedJob"] = []
    model = kubeflow_trainer_api.models.JobsetV1alpha2JobSet
    assert list(lost(document, model.from_dict(document).to_dict())) == ["spec.replicatedJob"]


def lost(written: Any, read: Any, path: str = "") -> Iterator[str]:
    """The paths of what a model dropped or changed."""
    if isinstance(written, dict):
        for key, value in written.items():
            inner = f"{path}.{key}".lstrip(".")
            if isinstance(read, dict) and key in read:
                yield from lost(value, read[key], inner)
            else:
                yield inner
    elif isinstance(written, list):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from lost(one, other, f"{path}.{number}")
    elif written != read:
        yield path


def test_the_workers_know_how_many_they_are_and_where_they_meet() -> None:
    for source in ("multi-node", "jobset"):
        (job,) = jobs(source)
        variables = {v["name"]: v["value"] for v in job["template"]["spec"]["containers"][0]["env"]}
        assert job["completions"] == job["parallelism"] == int(variables["WORLD_SIZE"])
        assert job["completionMode"] == "Indexed"
        assert job["template"]["spec"]["subdomain"] == "qlora-job"
    assert find(documents("multi-node"), "Service")["spec"]["clusterIP"] == "None"
    assert find(documents("jobset"), "JobSet")["spec"]["network"]["subdomain"] == "qlora-job"
    job, runtime = (
        find(documents("trainjob"), "TrainJob"),
        find(documents("trainjob"), "TrainingRuntime"),
    )
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["trainer"]["numNodes"] == runtime["spec"]["mlPolicy"]["numNodes"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [("multi-gpu", "Job"), ("multi-node", "Job"), ("jobset", "JobSet"), ("trainjob", "TrainJob")],
)
def test_what_runs_on_several_gpus_names_its_kueue_queue(source: str, kind: str) -> None:
    labels = find(documents(source), kind)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "qlora-job"
