"""What a run would do, before anything is trained: the answer of the `plan` command."""

from trainer import model, planner, selftest
from trainer.device import GIB, Device, choose_precision, find_device
from trainer.engine import why_stock
from trainer.settings import Settings


def outlook(settings: Settings, gpu: str | None) -> str:
    """The plan for `gpu` (a key of `planner.GPUS`) or for this machine's device, as lines of text.

    Only the base model's config and tokenizer are fetched. Raises JobError.
    """
    base = model.locate(settings)
    model.check(base, settings)
    device = find_device() if gpu is None else _named(gpu)
    precision = choose_precision(settings.precision, device)
    shape, trainable = base.shape(), model.trainable_parameters(base, settings)
    reason = why_stock(settings, base.config, precision, device)
    choice = planner.choose(
        device,
        shape,
        trainable=trainable,
        effective=settings.effective_batch_size,
        block_tokens=settings.max_length,
        micro_batch=settings.batch_size,
        engine=reason is None,
        host_bytes=selftest.free_host_bytes(),
    )
    steps = settings.effective_batch_size // choice.blocks
    rows = [
        ("base model", f"{base.name}, {shape.parameters:,} parameters"),
        ("device", f"{device.name}{_memory(device)}"),
        ("precision", f"{precision.name} ({precision.reason})"),
        ("trainable", f"{trainable:,} parameters, {100 * trainable / shape.parameters:.3f} %"),
        ("engine", "ours" if reason is None else f"stock: {reason}"),
        ("micro-batch", f"{choice.blocks} blocks of {settings.max_length} tokens, {steps} a step"),
        ("memory", choice.reason),
    ]
    if choice.tokens_per_s:
        measured = planner.speed_of(device.name).measured
        basis = "from rates measured on this kind" if measured else "not measured on this kind"
        rows.append(("speed", f"{choice.tokens_per_s:,.0f} tokens/s predicted ({basis})"))
        hours = 1e6 / choice.tokens_per_s / 3600
        rows.append(("time", f"{hours:.2f} hours for a million tokens"))
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


def _named(gpu: str) -> Device:
    speed = planner.GPUS[gpu]
    return Device("cuda", speed.name, speed.capability, int(speed.memory_gib * GIB))


def _memory(device: Device) -> str:
    return f", {device.free_bytes / GIB:.1f} GiB free" if device.kind == "cuda" else ""
