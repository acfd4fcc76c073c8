"""What the device can do: precision, memory and the micro-batch, each with its reason."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.errors import DoesNotFitError, SettingsError

if TYPE_CHECKING:
    import torch

GIB = 2**30
# NF4 with double quantisation: 4 bits, 8 for the absmax of 64 values, 32 for 256 of those.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
CPU_MICRO_BATCH = 8  # enough to share one dequantisation among many tokens


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


@dataclass(frozen=True)
class MicroBatch:
    """Blocks in one forward pass, and why."""

    blocks: int
    reason: str


def find_device() -> Device:
    """The first visible CUDA device, otherwise the CPU."""
    import torch

    if not torch.cuda.is_available():
        return Device("cpu", "CPU", None, 0)
    free, total = torch.cuda.mem_get_info()
    cap = int(torch.cuda.get_per_process_memory_fraction() * total)
    return Device(
        "cuda", torch.cuda.get_device_name(), torch.cuda.get_device_capability(), min(free, cap)
    )


def choose_precision(setting: str, device: Device) -> Precision:
    """The compute dtype for `setting` on `device`. SettingsError where the device cannot do it."""
    if device.capability is None:
        if setting == "fp16":
            raise SettingsError("QLORA_PRECISION=fp16 needs a GPU; use auto or fp32 on a CPU")
        return Precision("fp32", "a CPU") if setting == "auto" else Precision(setting, "as set")
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


def estimate_bytes(shape: Any, *, trainable: int, blocks: int, block_tokens: int) -> int:
    """Estimated peak bytes of training with full recompute on a GPU.

    `shape` is a `model.Shape`. Weights, adapter (value, gradient, two 8-bit states), one hidden
    state kept for each layer, one layer's working set and float32 logits. It was fitted to
    Llama-2-7B on one GPU (4.0, 5.0 and 8.7 GiB at 1, 4 and 16 blocks of 512 tokens).
    """
    tokens = blocks * block_tokens
    weights = shape.linear_parameters * NF4_BYTES + shape.other_parameters * 2
    adapter = trainable * (4 + 4 + 2)
    kept = shape.layers * shape.hidden * 2
    working = 2 * (16 * shape.hidden + 4 * shape.intermediate) + 4 * shape.vocabulary
    return int(weights + adapter + tokens * (kept + working))


def choose_micro_batch(
    device: Device, shape: Any, *, trainable: int, effective: int, block_tokens: int
) -> MicroBatch:
    """The largest divisor of `effective` whose estimated peak fits the device.

    Raises DoesNotFitError when not even one block does.
    """
    if device.kind == "cpu":
        blocks = max(b for b in _divisors(effective) if b <= CPU_MICRO_BATCH)
        return MicroBatch(blocks, "a CPU gains nothing from more")
    sizes = {
        b: estimate_bytes(shape, trainable=trainable, blocks=b, block_tokens=block_tokens)
        for b in _divisors(effective)
    }
    fitting = [b for b, needed in sizes.items() if needed <= device.free_bytes]
    if not fitting:
        raise DoesNotFitError(
            f"{device.name} has {device.free_bytes / GIB:.1f} GiB free and one block of "
            f"{block_tokens} tokens needs about {sizes[1] / GIB:.1f} GiB; lower QLORA_MAX_LENGTH "
            "or use a smaller model"
        )
    blocks = max(fitting)
    return MicroBatch(
        blocks,
        f"about {sizes[blocks] / GIB:.1f} GiB estimated of {device.free_bytes / GIB:.1f} GiB free",
    )


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
