"""The self-test at start: right numbers pass, and each mismatch gets its own next step."""

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.errors import DoesNotFitError
from trainer.runtime import selftest
from trainer.runtime.device import Device
from trainer.runtime.selftest import Surroundings

CPU = Device("cpu", "CPU", None, 0)
T4 = Device("cuda", "Tesla T4", (7, 5), 15 * 2**30)
NOTHING = Surroundings(None, None, None, None, "13.0")
OLD_DRIVER = Surroundings("all", "/dev/nvidia0", "535.183.01", (12, 2), "13.0")
GOOD_DRIVER = replace(OLD_DRIVER, driver="580.95.05", driver_cuda=(13, 0))


@pytest.fixture(autouse=True)
def no_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "void")


def test_a_cpu_does_four_bit_work() -> None:
    selftest.check(CPU)


def test_a_four_bit_product_is_near_the_plain_one_and_not_equal() -> None:
    plain, fused = selftest.errors_of_4bit("cpu")
    assert 0.05 < plain < selftest.NF4_ERROR
    assert fused < selftest.FUSED_ERROR


def test_wrong_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "errors_of_4bit", lambda kind: (float("nan"), 0.0))
    with pytest.raises(DoesNotFitError, match="4-bit product"):
        selftest.check(CPU)


def test_a_gpu_asked_for_and_not_there_is_not_trained_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    with pytest.raises(DoesNotFitError, match="NVIDIA_VISIBLE_DEVICES=void"):
        selftest.check(CPU)


@pytest.mark.parametrize(
    "around, next_step",
    [
        (OLD_DRIVER, "driver 535.183.01 runs CUDA up to 12.2 .* use the -cu126 image"),
        (replace(OLD_DRIVER, torch_cuda=None), "built for CPUs only; use the -cu130 image"),
        (replace(GOOD_DRIVER, device_file=None), "the container has none; start it with `--gpus"),
        (GOOD_DRIVER, r"sees no GPU \(driver 580.95.05\); run `nvidia-smi`"),
    ],
)
def test_a_missing_gpu_is_explained(around: Surroundings, next_step: str) -> None:
    sentence = selftest.missing_gpu(around)
    assert sentence is not None
    with pytest.raises(DoesNotFitError, match=next_step):
        raise DoesNotFitError(sentence)


def test_no_gpu_asked_for_is_no_fault() -> None:
    assert selftest.missing_gpu(NOTHING) is None


@pytest.mark.parametrize(
    "fault, next_step",
    [
        ("CUDA error: no kernel image is available for execution on the device", "sm_75"),
        ("CUDA driver version is insufficient for CUDA runtime version", "-cu126 image"),
        ("bitsandbytes loaded no GPU library", "BNB_CUDA_VERSION"),
        ("CUDA error: an illegal memory access\nsecond line", "illegal memory access; run"),
        ("", "no reason given"),
    ],
)
def test_a_gpu_that_fails_is_explained_in_one_line(fault: str, next_step: str) -> None:
    sentence = selftest.broken_device(T4, OLD_DRIVER, fault)
    assert next_step in sentence
    assert "\n" not in sentence


def test_the_surroundings_are_read_from_the_container(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
    )
    around = selftest.surroundings({"NVIDIA_VISIBLE_DEVICES": "GPU-1"}, tmp_path, version)
    assert around.asked_for == "GPU-1"
    assert around.device_file == str(tmp_path / "nvidia0")
    assert around.driver == "535.183.01"


@pytest.mark.parametrize(
    "environ",
    [
        {"NVIDIA_VISIBLE_DEVICES": "void"},
        {"NVIDIA_VISIBLE_DEVICES": "none"},
        {"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
    ],
)
def test_a_gpu_hidden_on_purpose_is_not_missed(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    around = selftest.surroundings(environ, tmp_path, tmp_path / "none")
    assert selftest.missing_gpu(around) is None


@pytest.mark.parametrize(
    "text, limit", [("max\n", None), ("268435456\n", 2**28), ("9223372036854771712\n", None)]
)
def test_the_memory_limit_of_the_container_is_read(
    text: str, limit: int | None, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text(text)
    assert selftest.memory_limit((tmp_path / "missing", tmp_path / "memory.max")) == limit


def test_what_may_be_pinned_leaves_the_process_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemAvailable: {60 * 2**20} kB\n")
    for limit, free in ((None, 60), (46 * 2**30, 46), (2**30, 1)):
        monkeypatch.setattr(selftest, "memory_limit", lambda limit=limit: limit)
        size = selftest.pinnable_bytes(meminfo)
        assert size == max(0, (free - 4) * 2**30 * 7 // 8)
        assert selftest.free_host_bytes(meminfo) == free * 2**29
        assert size == 0 or abs(selftest.needed_for_pinned(size) - free * 2**30) < 8


def test_a_container_with_too_little_memory_is_told_before_the_kernel_kills_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selftest, "memory_limit", lambda: 2**28)
    with pytest.raises(DoesNotFitError, match=r"0\.25 GiB .* raise --memory"):
        selftest.check_memory()
