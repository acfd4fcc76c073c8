"""What the device can do: its memory and its precision, with the reason."""

import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import SettingsError

if TYPE_CHECKING:
    import torch

GIB = 2**30
DRIVER, CONTROL = "libcuda.so.1", Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Device:
    """The one device a run uses. On a CPU `capability` is None and memory is not counted."""

    kind: str
    name: str
    capability: tuple[int, int] | None
    free_bytes: int


@dataclass(frozen=True)
class Precision:
    """A compute dtype by its setting's name, and why it was chosen."""

    name: str
    reason: str

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[self.name]


def wake_gpu() -> None:
    """Have the driver started, and the context made that torch will use, beside its import: both
    take a second. Not for one of several workers, whose GPU may be another one."""
    if CONTROL.exists() and "LOCAL_RANK" not in os.environ:
        threading.Thread(target=_make_context, daemon=True).start()


def _make_context() -> None:
    """What is wrong with a driver is told later, by the self-test."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL(DRIVER)
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def find_device() -> Device:
    """The first visible CUDA device, otherwise the CPU."""
    import torch

    if not torch.cuda.is_available():
        return Device("cpu", "CPU", None, 0)
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return Device("cuda", name, capability, free_gpu_bytes())


def free_gpu_bytes(device: "torch.device | None" = None) -> int:
    """What this process may still take of `device`, or of the first GPU, with what torch holds of
    it unused."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_allocated(device)
    cap = torch.cuda.get_per_process_memory_fraction(device) * total
    return int(min(free + torch.cuda.memory_reserved(device) - held, cap - held))


def choose_precision(setting: str, device: Device) -> Precision:
    """The compute dtype for `setting` on `device`. SettingsError where the device cannot do it."""
    if device.capability is None:
        if setting == "fp16":
            raise SettingsError("QLORA_PRECISION=fp16 needs a GPU; use auto or fp32 on a CPU")
        return (
            Precision("fp32", "a CPU gains nothing from fewer bits")
            if setting == "auto"
            else Precision(setting, "as set")
        )
    # torch.cuda.is_bf16_supported() counts emulation, so the capability decides.
    has_bf16 = device.capability >= (8, 0)
    compute = f"sm_{device.capability[0]}{device.capability[1]}"
    if setting == "bf16" and not has_bf16:
        raise SettingsError(
            f"QLORA_PRECISION=bf16: {device.name} ({compute}) has no bf16; use auto or fp16"
        )
    if setting != "auto":
        return Precision(setting, "as set")
    if has_bf16:
        return Precision("bf16", f"{compute} has bf16")
    return Precision("fp16", f"{compute} has fp16 tensor cores and no bf16; loss scaling on")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory ran out. torch's allocator has a type of its own for that; cuBLAS,
    cuDNN, Triton and the driver, which take memory past it, say so only in words."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error)
        for words in ("CUDA error: out of memory", "[CUDA]: out of memory", "ALLOC_FAILED")
    )


def memory_gib() -> float:
    """The most memory that this process has held so far: of the GPU where it uses one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
