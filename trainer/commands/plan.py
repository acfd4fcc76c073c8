"""What a run would do, before anything is trained: the answer of the `plan` command."""

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.engine.support import why_stock
from trainer.models import base_model
from trainer.models.locate import locate_base
from trainer.planner.choose import Workload, choose_for
from trainer.planner.gpus import GPUS, speed_of
from trainer.planner.scaling import ScalingEstimate
from trainer.runtime import selftest
from trainer.runtime.device import GIB, Device, choose_precision, find_device
from trainer.settings import Settings

SMALL = 0.1  # share of the computing time that a network may take


@dataclass(frozen=True)
class PlanRequest:
    """What is asked beside the settings: on which GPU (a key of `gpus.GPUS`; None is this
    machine's device), for how many workers and tokens, at which price of an hour of one GPU."""

    gpu: str | None = None
    workers: int = 1
    tokens: int = 10**6
    price: float | None = None


def outlook(settings: Settings, asked: PlanRequest) -> str:
    """The plan of one worker and what all need together, as lines of text.

    Only the base model's config and tokenizer are fetched. Raises JobError.
    """
    base = locate_base(settings)
    base_model.check_settings(base, settings)
    device = find_device() if asked.gpu is None else _named(asked.gpu)
    precision = choose_precision(settings.precision, device)
    shape, trainable = base.shape(), base_model.trainable_parameters(base, settings)
    reason = why_stock(settings, base.config, precision, device)
    workload = Workload(
        device,
        shape,
        trainable=trainable,
        step_blocks=-(-settings.effective_batch_size // asked.workers),
        block_tokens=settings.max_length,
        micro_batch=settings.batch_size,
        engine=reason is None,
        host_bytes=selftest.free_host_bytes(),
    )
    choice = choose_for(asked.workers, settings.sharding, workload)
    estimate = ScalingEstimate(
        execution=choice,
        workers=asked.workers,
        step_blocks=settings.effective_batch_size,
        block_tokens=settings.max_length,
        trainable=trainable,
        linear_parameters=shape.linear_parameters,
        parameters=shape.parameters,
    )
    rows = [
        ("base model", f"{base.name}, {shape.parameters:,} parameters"),
        ("device", f"{device.name}{_memory(device)}"),
        ("precision", f"{precision.name} ({precision.reason})"),
        ("trainable", f"{trainable:,} parameters, {100 * trainable / shape.parameters:.3f} %"),
        ("engine", "ours" if reason is None else f"stock: {reason}"),
        (
            "micro-batch",
            f"{choice.blocks} blocks of {settings.max_length} tokens, "
            f"{estimate.micro_batches} a step",
        ),
        ("memory", choice.reason),
    ]
    if choice.tokens_per_s:
        measured = speed_of(device.name).measured
        basis = "from rates measured on this kind" if measured else "not measured on this kind"
        rows.append(("speed", f"{estimate.tokens_per_s:,.0f} tokens/s predicted ({basis})"))
        rows.append(("time", _time(estimate, asked)))
    rows += _traffic(estimate)
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


def _time(estimate: ScalingEstimate, asked: PlanRequest) -> str:
    hours = estimate.hours(asked.tokens)
    whole = f"{hours:,.2f} hours for {asked.tokens:,} tokens"
    if asked.workers > 1:
        whole += (
            f" on {asked.workers} GPUs without the network, {hours * asked.workers:,.2f} GPU hours"
        )
    if asked.price is not None:
        whole += f", {hours * asked.workers * asked.price:,.2f} at {asked.price:g} an hour"
    return whole


def _traffic(estimate: ScalingEstimate) -> Iterator[tuple[str, str]]:
    """Of one worker. The data is not counted: every worker fetches all of it."""
    yield "fetched", f"{_size(estimate.fetched_bytes)} of base (16 bits), and all of the data"
    if estimate.workers == 1:
        return
    sent = f"{_size(estimate.gradient_bytes)} of gradients"
    if estimate.gather_bytes:
        sent += f" and {_size(estimate.gather_bytes)} of the base's layers"
    yield "sent", f"{sent} by each worker in each step, and as much received"
    if estimate.execution.tokens_per_s:
        rate = estimate.gbit_per_s(SMALL)
        yield "network", f"{rate:,.2f} Gbit/s between workers take a tenth of the computing time"


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def _named(gpu: str) -> Device:
    speed = GPUS[gpu]
    return Device("cuda", speed.name, speed.capability, int(speed.memory_gib * GIB))


def _memory(device: Device) -> str:
    return f", {device.free_bytes / GIB:.1f} GiB free" if device.kind == "cuda" else ""
