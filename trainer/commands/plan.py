"""`plan`: what a run would do, before anything is trained."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from trainer.commands.look import Look, look_at, too_little
from trainer.commands.trial import Trial, can_be_tried, try_run, whole_time
from trainer.dataset.counts import cautions
from trainer.engine.support import why_stock
from trainer.errors import DoesNotFitError
from trainer.models import base_model
from trainer.models.architecture import unnamed_for_peft
from trainer.models.locate import locate_base
from trainer.models.residual_stream import check_precision, is_wide
from trainer.monitoring.counting import waiting
from trainer.planner.choose import Workload, choose_for
from trainer.planner.cpu_speed import predicted_on_this_cpu
from trainer.planner.decoding_plan import (
    MOST_ROWS,
    DecodingNeeds,
    answered_tokens_per_s,
    choose_decoding,
)
from trainer.planner.disk_speed import free_disk_bytes
from trainer.planner.gpus import GPUS, multiplies_unasked, nodes_with, speed_of
from trainer.planner.memory_plan import (
    HALF,
    SLOTS,
    disk_bytes,
    host_bytes,
    layer_bytes,
    weight_bytes,
)
from trainer.planner.scaling import ScalingEstimate
from trainer.planner.schedule import choose_schedule
from trainer.reporting.data_section import data_rows, schedule_rows
from trainer.reporting.run_record import RecordedSchedule, RecordedSettings
from trainer.runtime import selftest
from trainer.runtime.device import GIB, Device, Precision, choose_precision, find_device
from trainer.runtime.log import columns
from trainer.runtime.nf4 import NF4_BYTES
from trainer.runtime.wording import counted, hanging, lasting, sized
from trainer.settings import Settings

SHORT_HOST_BYTES = 9 * GIB  # that may be pinned on a node of 16
ROW_TOKENS = 128  # of a question of 64 with an answer of 64
TOKENS = 10**6  # where neither data nor a number is given
OURS = "ours, in the place of transformers' training loop"
SMALL_SHARE = 0.1  # of the computing time, which a network may take
Rows = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class PlanRequest:
    """What is asked beside the settings: on which GPU (a key of `gpus.GPUS`; None is this
    machine's device), for how many workers and tokens (None are those of the data), at which price
    of an hour of one GPU."""

    gpu: str | None = None
    workers: int = 1
    tokens: int | None = None
    price: float | None = None


@dataclass(frozen=True)
class Prospect:
    """What is known of a run before it starts. `stock_reason` is None where our engine trains,
    `look` where no data was looked at; `tokens` are those of all passes. `trial` is how
    the run's own steps went on this machine, where they were tried."""

    base: base_model.Base
    settings: Settings
    device: Device
    precision: Precision
    stock_reason: str | None
    estimate: ScalingEstimate
    tokens: int
    look: Look | None
    trial: Trial | None
    workload: Workload


@waiting("planning")
def plan_run(settings: Settings, request: PlanRequest) -> str:
    """The plan of one worker and what all need together, as lines of text.

    Of the base model only config and tokenizer are fetched; the data is read where it is given and
    the tokens are not. Raises JobError.
    """
    prospect = _look_ahead(settings, request)
    rows = [
        *_data(prospect),
        *_execution(prospect),
        *_time(prospect, request),
        *_answers(prospect),
        *(_fetched(prospect) if request.gpu or not prospect.base.is_here else ()),
        *_traffic(prospect.estimate),
        *(("note", note) for note in _notes(prospect)),
    ]
    # As wide as the terminal, and whole where there is none.
    width = columns(sys.stdout) if sys.stdout.isatty() else sys.maxsize
    return "\n".join(hanging(value, width, f"{name:<12} ") for name, value in rows)


@waiting("trying its first steps")
def training_time(settings: Settings) -> str:
    """How long a run would train on this machine, in words. Raises JobError."""
    request = PlanRequest()
    return dict(_time(_look_ahead(settings, request), request))["time"]


def _look_ahead(settings: Settings, request: PlanRequest) -> Prospect:
    look = look_at(settings) if settings.data_uri and request.tokens is None else None
    base, settings = (look.base, look.settings) if look else (locate_base(settings), settings)
    base_model.check_settings(base, settings)
    device = find_device() if request.gpu is None else _named(request.gpu)
    precision = choose_precision(settings.precision, device)
    check_precision(base.config, base.name, precision)
    shape, trainable = base.shape(precision.name), base_model.trainable_parameters(base, settings)
    reason = why_stock(settings, base.config, precision, device)
    if look is None:
        tokens = request.tokens or TOKENS
        blocks = tokens // settings.max_length
        schedule = choose_schedule(settings, blocks=blocks, records=1, hidden=shape.hidden)
    else:
        tokens, schedule = look.trained_tokens, look.schedule
    workload = Workload(
        device,
        shape,
        trainable=trainable,
        step_blocks=-(-schedule.step_blocks // request.workers),
        block_tokens=settings.max_length,
        micro_batch=settings.batch_size,
        adapter_width=trainable // settings.lora_r,
        workers=request.workers,
        unasked=multiplies_unasked(device.capability, precision.name),
        engine=reason is None,
        # Another machine's is not known: what it takes is said.
        host_bytes=selftest.pinnable_bytes() if request.gpu is None else 1 << 60,
        disk_bytes=free_disk_bytes(settings.scratch_dir) if request.gpu is None else 1 << 60,
    )
    execution = choose_for(request.workers, settings.sharding, workload)
    trial = None
    if device.kind == "cpu":
        if look is not None and request.workers == 1 and can_be_tried(look, execution):
            trial = try_run(look, settings, precision, execution)
            execution = replace(execution, tokens_per_s=1 / trial.trained_s)
        else:
            execution = predicted_on_this_cpu(execution, shape, settings.max_length)
    estimate = ScalingEstimate(
        execution=execution,
        workers=request.workers,
        step_blocks=schedule.step_blocks,
        block_tokens=settings.max_length,
        trainable=trainable,
        linear_parameters=shape.linear_parameters,
        parameters=shape.parameters,
    )
    return Prospect(
        base, settings, device, precision, reason, estimate, tokens, look, trial, workload
    )


def _data(prospect: Prospect) -> Rows:
    """What the data becomes, where it was looked at; first, that something else is trained."""
    if (look := prospect.look) is None:
        return
    if look.asking.first:
        yield "note", look.asking.reason
    about = "about " if look.asking.first and not look.counts.records else ""
    recorded = RecordedSettings.from_json(prospect.settings.to_dict())
    known = dict(data_rows(recorded, look.counts))
    for name in ("read", *([] if look.asking.first else ["tokens", "held out"])):
        if name in known:
            yield name, known[name]
    yield "blocks", f"{about}{look.blocks:,} of {look.block_tokens} tokens"
    yield "steps", f"{about}{look.steps:,}, {prospect.tokens:,} tokens in all passes"
    rows = dict(schedule_rows(RecordedSchedule.from_json(look.schedule.to_json())))
    yield "schedule", rows["schedule"]


def _notes(prospect: Prospect) -> Iterator[str]:
    if (look := prospect.look) is not None:
        yield from () if look.asking.first else too_little(look, prospect.settings)
        yield from cautions(look.data.counts, prospect.settings.max_length)


def _execution(prospect: Prospect) -> Rows:
    """Where and how one worker trains."""
    base, device, estimate = prospect.base, prospect.device, prospect.estimate
    precision = prospect.precision
    execution, reason = estimate.execution, prospect.stock_reason
    share = 100 * estimate.trainable / estimate.parameters
    yield "base model", f"{base.name}, {estimate.parameters:,} parameters"
    yield "device", f"{device.name}{_memory(device)}"
    stream = "; its residual stream in float32" if is_wide(base.config, precision.name) else ""
    yield "precision", f"{precision.name} ({precision.reason}){stream}"
    yield "trainable", f"{estimate.trainable:,} parameters, {share:.3f} %"
    yield "engine", OURS if reason is None else f"stock: {reason}"
    micro_batch = (
        f"{counted(execution.blocks, 'block')} of {estimate.block_tokens} tokens, "
        f"{estimate.micro_batches} a step"
    )
    if device.kind == "cpu":  # whose memory decides nothing
        yield "micro-batch", f"{micro_batch} ({execution.reason})"
    else:
        yield "micro-batch", micro_batch
        yield "memory", execution.reason
    yield from _host_memory(prospect)
    yield from _experts(base)


def _host_memory(prospect: Prospect) -> Rows:
    """What of it is pinned, for layers or activations."""
    execution = prospect.estimate.execution
    shape = prospect.base.shape(prospect.precision.name)
    if execution.plan is None:
        return
    tokens = execution.blocks * prospect.estimate.block_tokens
    if size := host_bytes(shape, execution.plan, tokens):
        needed = selftest.needed_for_pinned(size)
        text = f"{sized(size)} pinned, of a machine with {sized(needed)} free or more"
        nodes = nodes_with(prospect.device.name, needed)
        yield "host memory", text + (f": {' or '.join(nodes)}" if nodes else "")
    if execution.plan.hosted_layers and (on_disk := _from_disk(prospect)):
        yield "scratch disk", on_disk


def _from_disk(prospect: Prospect) -> str | None:
    """What lies there, or would where host memory is short too, and what that costs."""
    workload, execution, before = prospect.workload, prospect.estimate.execution, ""
    if execution.plan is not None and not execution.plan.on_disk:
        workload = replace(workload, host_bytes=SHORT_HOST_BYTES)
        with suppress(DoesNotFitError):
            execution = choose_for(workload.workers, prospect.settings.sharding, workload)
        before = f"where {sized(SHORT_HOST_BYTES)} may be pinned, "
    if execution.plan is None or not execution.plan.on_disk:
        return None
    speed = speed_of(workload.device.name).disk_bytes_per_s
    micro_batches = workload.step_blocks // execution.blocks
    size, reads = disk_bytes(workload.shape, execution.plan), 2 * micro_batches
    return (
        f"{before}{sized(size)}, read {counted(reads, 'time')} a step: "
        f"{lasting(reads * size / speed)} at {sized(speed)}/s, which a run measures; "
        f"{execution.tokens_per_s:,.0f} tokens/s then"
    )


def _experts(base: base_model.Base) -> Rows:
    shape = base.shape()
    if not shape.expert_parameters:
        return
    size, active = sized(NF4_BYTES * shape.expert_parameters), f"{shape.active_parameters:,}"
    yield "experts", f"{size} in NF4, frozen; {active} parameters of them for a token"
    unnamed = unnamed_for_peft(base.skeleton)
    if unnamed:
        names = ", ".join(unnamed)
        yield "no adapter", f"{names} outside of the experts: peft would take them for the experts'"


def _time(prospect: Prospect, request: PlanRequest) -> Rows:
    """Of the training of all workers."""
    estimate = prospect.estimate
    measured = speed_of(prospect.device.name).measured
    basis = "from rates measured on this kind" if measured else "not measured on this kind"
    if prospect.device.kind == "cpu":
        basis = f"{'steps of this data' if prospect.trial else 'products'} tried on this machine"
    elif prospect.stock_reason is not None:
        basis = "half of what our engine would reach at most, not measured with this model"
    yield "speed", f"{estimate.tokens_per_s:,.0f} tokens/s predicted ({basis})"
    trial, look, hours = prospect.trial, prospect.look, estimate.hours(prospect.tokens)
    if trial and look:
        hours = trial.training_s(look, prospect.tokens) / 3600
    gpu_hours, text = hours * request.workers, ""
    if request.workers > 1:
        text += f" on {request.workers} GPUs without the network, {gpu_hours:,.2f} GPU hours"
    if request.price is not None:
        text += f", {gpu_hours * request.price:,.2f} at {request.price:g} an hour"
    if trial and look:
        yield "time", f"{whole_time(trial, look, prospect.tokens)}{text}"
        return
    training_s, rest = 3600 * hours, "questions for a tenth of it, or half a minute, and checks"
    if look is not None:
        each_s, on_gpu = training_s / prospect.tokens, prospect.device.kind != "cpu"
        rest = look.afterwards.in_words(training_s, each_s, on_gpu=on_gpu)
    text = f"{lasting(training_s)} for {prospect.tokens:,} tokens{text}"
    yield "time", f"{text}; on top come loading and {rest}"


def _answers(prospect: Prospect) -> Rows:
    """Many short ones on one GPU; nothing is predicted for transformers, nor for a CPU."""
    device, shape = prospect.device, prospect.base.shape()
    plan = prospect.estimate.execution.plan
    if device.capability is None or plan is None:
        return
    if shape.expert_parameters or shape.mixed:
        yield "answers", "by transformers' loop, for which nothing is predicted"
        return
    needs = DecodingNeeds.of(
        layers=shape.layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        vocabulary=shape.vocabulary,
        kv=shape.kv,
        layer_parameters=shape.linear_parameters // shape.layers,
        row_tokens=ROW_TOKENS,
        value_bytes=HALF,
    )
    hosted = plan.hosted_layers
    weights = int(weight_bytes(shape) - max(0, hosted - SLOTS) * layer_bytes(shape))
    decoding = choose_decoding(
        needs,
        questions=MOST_ROWS,
        row_tokens=ROW_TOKENS,
        free_bytes=max(0, device.free_bytes - weights),
        capability=device.capability,
        resident=not hosted,
    )
    speed, row_tokens = speed_of(device.name), ROW_TOKENS * 3 / 4
    rate = answered_tokens_per_s(shape, decoding, row_tokens, speed, hosted)
    yield "answers", f"{decoding.rows} together at {rate:,.0f} tokens/s predicted, not measured"


def _fetched(prospect: Prospect) -> Rows:
    size = sized(prospect.estimate.fetched_bytes)
    yield "fetched", f"{size} of base (16 bits), and all of the data"


def _traffic(estimate: ScalingEstimate) -> Rows:
    """Of one worker. The data is not counted: every worker fetches all of it."""
    if estimate.workers == 1:
        return
    sent = f"{sized(estimate.gradient_bytes)} of gradients"
    if estimate.gather_bytes:
        sent += f" and {sized(estimate.gather_bytes)} of the base's layers"
    yield "sent", f"{sent} by each worker in each step, and as much received"
    if estimate.execution.tokens_per_s:
        rate = estimate.gbit_per_s(SMALL_SHARE)
        yield "network", f"{rate:,.2f} Gbit/s between workers take a tenth of the computing time"


def _named(gpu: str) -> Device:
    speed = GPUS[gpu]
    return Device("cuda", speed.name, speed.capability, int(speed.memory_gib * GIB))


def _memory(device: Device) -> str:
    return f", {device.free_bytes / GIB:.1f} GiB free" if device.kind == "cuda" else ""
