"""Before anything is downloaded: can this device do 4-bit work, and has the container the memory?

A mismatch of driver, CUDA build and GPU otherwise ends in a stack trace in the middle of a run, or
worse: torch sees no GPU and a 7B model starts to train on the CPU.
"""

import ctypes
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import DoesNotFitError
from trainer.runtime import lean_imports
from trainer.runtime.device import GIB
from trainer.runtime.nf4 import BLOCK_VALUES

if TYPE_CHECKING:
    from trainer.runtime.device import Device

log = logging.getLogger(__name__)

# The peak of the built-in model with 4 blocks of 128 tokens in one step was 0.55 GiB.
LEAST_MEMORY_BYTES = int(0.6 * GIB)
CGROUP_LIMITS = (  # version 2, version 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
MEMINFO = Path("/proc/meminfo")
BESIDE_PINNED_BYTES = 4 * GIB  # torch, CUDA, and what a loader and a tokenizer take
NF4_ERROR = 0.15  # relative; NF4 of a normal matrix is off by about 0.09
FUSED_ERROR = 0.01  # relative; two ways to multiply the same 4-bit weights, in half precision
CPU_ON_PURPOSE = "or set NVIDIA_VISIBLE_DEVICES=void to train on the CPU"


@dataclass(frozen=True)
class Surroundings:
    """What the container says about GPUs, beside what torch says."""

    asked_for: str | None  # NVIDIA_VISIBLE_DEVICES, None where it asks for nothing
    device_file: str | None  # "/dev/nvidia0"
    driver: str | None  # "535.183.01"
    driver_cuda: tuple[int, int] | None  # the newest CUDA that the driver runs
    torch_cuda: str | None  # "13.0", None for a CPU build


def check(device: "Device") -> None:
    """Quantise a small matrix to NF4 on `device`, multiply, and compare with the plain product.

    Raises DoesNotFitError: a GPU was asked for and torch sees none, the driver is too old for the
    CUDA build, torch or bitsandbytes has no code for the GPU, or the numbers are wrong.
    """
    if device.kind == "cpu":
        sentence = missing_gpu(surroundings())
        if sentence is not None:
            raise DoesNotFitError(sentence)
    try:
        plain, fused = errors_of_4bit(device.kind)
    except (RuntimeError, OSError, AttributeError, NotImplementedError) as error:
        raise DoesNotFitError(broken_device(device, surroundings(), str(error))) from error
    if not (plain < NF4_ERROR and fused < FUSED_ERROR):
        raise DoesNotFitError(
            f"{device.name}: a 4-bit product is off by {plain:.0%} from the plain one and by "
            f"{fused:.0%} from its own weights; report the GPU, the driver and the image's tag"
        )
    log.debug("4-bit self-test on %s: off by %.3f and %.5f", device.name, plain, fused)


def check_memory(needed_bytes: int = LEAST_MEMORY_BYTES) -> None:
    """Raises DoesNotFitError where the container may use less than `needed_bytes`.

    Past this the kernel kills the process (exit code 137) and no sentence can be written.
    """
    limit = memory_limit()
    if limit is not None and limit < needed_bytes:
        raise DoesNotFitError(
            f"the container may use {limit / GIB:.2f} GiB of memory and this run needs about "
            f"{needed_bytes / GIB:.2f} GiB; raise --memory (Kubernetes: resources.limits.memory)"
        )


def memory_limit(files: tuple[Path, ...] = CGROUP_LIMITS) -> int | None:
    """Bytes that this container may use; None without a limit."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:  # version 1 writes a huge number for no limit
            return int(text)
    return None


def free_host_bytes(meminfo: Path = MEMINFO) -> int:
    """Bytes of host memory that may be filled for speed: half of what is free, or of the limit."""
    return _free(meminfo) // 2


def pinnable_bytes(meminfo: Path = MEMINFO) -> int:
    """Bytes of it that may be pinned for a training: all but what the process itself takes, and an
    eighth."""
    return max(0, (_free(meminfo) - BESIDE_PINNED_BYTES) * 7 // 8)


def needed_for_pinned(size: int) -> int:
    """Bytes of host memory that are to be free where `size` are pinned."""
    return size * 8 // 7 + BESIDE_PINNED_BYTES


def _free(meminfo: Path) -> int:
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"))
    free = int(found[1]) * 1024 if found else 0
    return min(free, memory_limit() or free)


def errors_of_4bit(kind: str) -> tuple[float, float]:
    """Relative errors of a 4-bit product: against the plain matrix, and against the
    dequantised one."""
    lean_imports.import_bitsandbytes()
    import torch
    from bitsandbytes import functional, matmul_4bit
    from bitsandbytes.cextension import lib

    if kind == "cuda" and not getattr(lib, "compiled_with_cuda", False):
        raise RuntimeError("bitsandbytes loaded no GPU library")
    dtype = torch.float32 if kind == "cpu" else torch.float16
    noise = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(128, 256, generator=noise).to(kind, dtype)
    input_BI = torch.randn(8, 256, generator=noise).to(kind, dtype)
    packed, state = functional.quantize_4bit(
        weight_OI, quant_type="nf4", compress_statistics=True, blocksize=BLOCK_VALUES
    )
    result_BO = matmul_4bit(input_BI, packed.t(), quant_state=state).float()
    plain_BO = (input_BI @ weight_OI.t()).float()
    same_weights_BO = (input_BI @ functional.dequantize_4bit(packed, state).t()).float()

    def relative(reference_BO: "torch.Tensor") -> float:
        return float((result_BO - reference_BO).norm() / reference_BO.norm())

    return relative(plain_BO), relative(same_weights_BO)


def missing_gpu(around: Surroundings) -> str | None:
    """Why torch sees no GPU where one was asked for; None where none was."""
    if around.asked_for is None and around.device_file is None:
        return None
    sign = around.device_file or f"NVIDIA_VISIBLE_DEVICES={around.asked_for}"
    if around.torch_cuda is None:
        return (
            f"{sign} says that there is a GPU and this torch is built for CPUs only; use the "
            f"-cu130 image, {CPU_ON_PURPOSE}"
        )
    if (old := too_old(around)) is not None:
        return f"{old}, {CPU_ON_PURPOSE}"
    if around.device_file is None:
        return (
            f"{sign} asks for a GPU and the container has none; start it with `--gpus all` "
            f"(Kubernetes: the limit nvidia.com/gpu: 1), {CPU_ON_PURPOSE}"
        )
    driver = f"driver {around.driver}" if around.driver else "no driver library"
    return (
        f"{sign} is there and torch, built for CUDA {around.torch_cuda}, sees no GPU ({driver}); "
        f"run `nvidia-smi` on the node and in the container, {CPU_ON_PURPOSE}"
    )


def broken_device(device: "Device", around: Surroundings, fault: str) -> str:
    """What an exception of the 4-bit test means."""
    if device.capability is None:
        return f"bitsandbytes cannot do 4-bit work on this CPU ({_line(fault)}); use another image"
    compute = f"sm_{device.capability[0]}{device.capability[1]}"
    if re.search(r"driver version is insufficient|driver on your system is too old", fault):
        old = too_old(around) or f"driver {around.driver} is too old for CUDA {around.torch_cuda}"
        return f"{device.name}: {old}"
    if re.search(r"no kernel image|not compiled for|invalid device function", fault):
        return (
            f"{device.name} ({compute}) is not among the GPUs that this image's CUDA "
            f"{around.torch_cuda} code was built for; use the -cu126 image for an older GPU and a "
            "newer image for a newer one"
        )
    if re.search(r"no GPU library|native library|No compatible", fault):
        return (
            f"bitsandbytes has no library that works with CUDA {around.torch_cuda} on "
            f"{device.name} ({compute}, driver {around.driver}); use the image as it was built, "
            "without BNB_CUDA_VERSION and LD_LIBRARY_PATH of your own"
        )
    return (
        f"{device.name} ({compute}, driver {around.driver}, CUDA {around.torch_cuda}) fails at "
        f"4-bit work: {_line(fault)}; run `nvidia-smi` on the node and try another one"
    )


def too_old(around: Surroundings) -> str | None:
    """That the driver runs no CUDA of torch's major version, and what to do; None where it does."""
    if around.torch_cuda is None or around.driver_cuda is None:
        return None
    major = int(around.torch_cuda.split(".")[0])
    if around.driver_cuda[0] >= major:
        return None
    driver_cuda = ".".join(map(str, around.driver_cuda))
    return (
        f"driver {around.driver or 'of the node'} runs CUDA up to {driver_cuda} and this torch is "
        f"built for CUDA {around.torch_cuda}; use the -cu126 image or driver 580 or newer"
    )


def surroundings(
    environ: Mapping[str, str] = os.environ,
    devices: Path = Path("/dev"),
    driver_file: Path = Path("/proc/driver/nvidia/version"),
) -> Surroundings:
    """Read what the container runtime and the driver left for this process."""
    import torch

    asked_for = environ.get("NVIDIA_VISIBLE_DEVICES", "")
    hidden = environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    files = sorted(devices.glob("nvidia[0-9]*")) + sorted(devices.glob("dxg"))
    try:
        found = re.search(r"\s(\d{3}(?:\.\d+)+)\s", driver_file.read_text(encoding="utf-8"))
    except OSError:
        found = None
    return Surroundings(
        asked_for=None if hidden or asked_for in ("", "void", "none") else asked_for,
        device_file=None if hidden or asked_for in ("void", "none") or not files else str(files[0]),
        driver=found[1] if found else None,
        driver_cuda=_driver_cuda(),
        torch_cuda=torch.version.cuda,
    )


def _driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the installed driver runs."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return (version.value // 1000, version.value % 1000 // 10) if version.value else None


def _line(text: str) -> str:
    """The first line of `text`, short enough for a sentence."""
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"
