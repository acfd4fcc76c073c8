"""The story of one run: settings in, published adapter out."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trainer.dataset import pipeline
from trainer.distributed.workers import Workers
from trainer.errors import SettingsError
from trainer.evaluation import compare, gate
from trainer.models import base_model, hub, load
from trainer.monitoring import trackers
from trainer.monitoring.prometheus import Metrics
from trainer.planner import choose
from trainer.reporting import run_record
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.fingerprint import claim, digest, fingerprint_of
from trainer.runs.publish import finished_at, move_latest, publish_run, reject_run
from trainer.runtime import lean_imports, selftest
from trainer.runtime.device import Device, Precision, choose_precision, find_device
from trainer.runtime.log import figures
from trainer.settings import Settings
from trainer.storage import Store, fetch_verified, open_store, read_manifest
from trainer.storage.files import only_process
from trainer.storage.lease import owner_of
from trainer.tokenization import chat_template, corpus_shards

log = logging.getLogger(__name__)

WEIGHTS = "adapter/adapter_model.safetensors"
TENSORBOARD = "tensorboard"
SLOW_ON_A_CPU = 10**9  # parameters


@dataclass(frozen=True)
class Job:
    """A run that can start: everything is checked and on local disk but the base's weights."""

    settings: Settings
    output: Store
    base: base_model.Base
    device: Device
    precision: Precision
    inputs: pipeline.Inputs
    fingerprint: str


def run(settings: Settings, workers: Workers | None = None) -> str:
    """Train, evaluate and publish; returns the run's id. Raises JobError.

    A run that is already finished is left as it is.
    """
    with Metrics(settings) as metrics:
        return _run(settings, metrics, workers or Workers())


def _run(settings: Settings, metrics: Metrics, workers: Workers) -> str:
    job = _open(settings)
    run_id = claim(job.output, settings, job.fingerprint)
    # Not by the run id alone: a user may give the same one to another run elsewhere.
    name = f"{run_id}-{digest(job.fingerprint)}"
    scratch = settings.scratch_dir / "runs" / workers.own(name)
    with only_process(scratch):
        if read_manifest(job.output, run_id) is None:
            with (
                workers.together(name, minutes=settings.storage_retry_minutes),
                trackers.Tracking(settings, run_id, scratch / TENSORBOARD) as tracker,
            ):
                _train_and_publish(job, run_id, scratch, metrics, tracker, workers)
        else:
            log.info("run %s is already finished; nothing to do", run_id)
        # Also by a later start: a kill may have come between the publishing and this.
        record = job.output.read(f"{run_id}/{run_record.RECORD}")
        move_latest(job.output, run_id, finished=finished_at(record))
        corpus_shards.forget(job.output, run_id)
        if settings.hub_repo:
            _push_to_hub(job, run_id, scratch / "hub")
    return run_id


def _push_to_hub(job: Job, run_id: str, folder: Path) -> None:
    """What was published, so that a later start can do it too."""
    fetch_verified(job.output, run_id, folder, only_prefix="adapter/")
    settings = job.settings
    address = hub.push(
        folder / "adapter",
        settings.hub_repo,
        f"Adapter of run {run_id}",
        retry_minutes=settings.storage_retry_minutes,
    )
    log.info("pushed to %s", address, extra=figures(hub=address))


def _open(settings: Settings) -> Job:
    """Whatever can be wrong is found here, before anything is trained."""
    selftest.check_memory()  # before torch, whose import may already be too much
    _refuse_output_among_data(settings)
    log.info("fine-tuning %s", settings.base_model, extra=figures(settings=settings.to_dict()))
    output = open_store(settings.output_uri, retry_minutes=settings.storage_retry_minutes)
    output.probe()
    base = base_model.locate(settings)
    base_model.check(base, settings)
    found = find_device()
    selftest.check(found)
    precision = choose_precision(settings.precision, found)
    trackers.check(settings)
    if settings.hub_repo:
        hub.check_token(settings.hub_repo)
    inputs = pipeline.fetch_inputs(settings)
    fingerprint = fingerprint_of(
        settings,
        base,
        precision,
        data={f.name: f.sha256 for f in inputs.data},
        evaluation={f.name: f.sha256 for f in inputs.evaluation},
        libraries=run_record.library_versions(),
    )
    return Job(settings, output, base, found, precision, inputs, fingerprint)


def _refuse_output_among_data(settings: Settings) -> None:
    """The next run would read this one's adapter, report and metrics as documents."""
    for name in ("data_uri", "eval_uri"):
        data, output = (_absolute(uri) for uri in (getattr(settings, name), settings.output_uri))
        if getattr(settings, name) and f"{output}/".startswith(f"{data}/"):
            raise SettingsError(
                f"QLORA_OUTPUT_URI={settings.output_uri} lies within QLORA_{name.upper()}, so that "
                "the next run would train on what this one publishes; name a place beside it"
            )


def _absolute(uri: str) -> str:
    return (uri if "://" in uri else str(Path(uri).resolve())).rstrip("/")


def _train_and_publish(
    job: Job,
    run_id: str,
    scratch: Path,
    metrics: Metrics,
    tracker: trackers.Tracking,
    workers: Workers,
) -> None:
    from trainer.models.sharded_base import ShardedBase, WholeBase

    # transformers greets W&B's offline mode on stdout
    with contextlib.redirect_stdout(None), lean_imports.without_wandb():
        from trainer.training import train
    lean_imports.collect_as_usual()

    tokenizer = job.base.tokenizer()
    if (reason := chat_template.ensure_chat_template(tokenizer)) is not None:
        log.info("%s", reason)
    blocks = pipeline.prepare(job.settings, job.inputs, tokenizer, _place(job, run_id, workers))
    fit = _fit(job, workers)
    frozen = ShardedBase(workers) if fit.is_sharded else WholeBase()
    quantised = load.load(job.base, job.settings, job.precision, job.device, frozen)
    tuned = load.attach_adapter(quantised, job.settings)
    trained = train(
        tuned,
        tokenizer,
        blocks.train,
        job.settings,
        held_out=blocks.held_out,
        precision=job.precision,
        device=job.device,
        choice=fit.choice,
        again=fit.again,
        checkpoints=Checkpoints(
            scratch / "checkpoints",
            job.output,
            f"{run_id}/checkpoints",
            job.fingerprint,
            owner_of(scratch),
        ),
        metrics=metrics,
        tracking=tracker,
        workers=workers,
        frozen=frozen,
    )
    if not workers.first:
        frozen.lend()
        return
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    run_record.save_adapter(tuned, tokenizer, job.base, folder / "adapter")
    with frozen.lent(tuned):
        evaluation = compare.compare(tuned, tokenizer, blocks.held_out, blocks.questions)
        faults = gate.faults(
            folder / "adapter",
            tuned,
            job.base,
            evaluation,
            train=blocks.train,
            held_out=blocks.held_out,
            ends=chat_template.stop_ids(tokenizer),
            max_loss_ratio=job.settings.max_loss_ratio,
        )
    tracker.finish(evaluation.figures())
    if (scratch / TENSORBOARD).is_dir():
        shutil.copytree(scratch / TENSORBOARD, folder / TENSORBOARD)
    run_record.describe(
        run_record.Run(
            run_id=run_id,
            settings=job.settings,
            base=job.base,
            inputs=job.inputs.objects(),
            data=blocks.counts,
            device=job.device,
            precision=job.precision,
            micro_batch=trained.choice,
            trainable_parameters=fit.trainable_parameters,
            total_parameters=fit.total_parameters,
            trained=trained,
            evaluation=evaluation,
            warnings=fit.warnings,
            faults=faults,
            finished=time.time(),
        ),
        folder,
    )
    if faults:
        reject_run(folder, job.output, run_id, faults)
    publish_run(folder, job.output, run_id, owner=owner_of(scratch), weights=WEIGHTS)
    log.info("published %s%s", job.output.uri, run_id, extra=figures(run_id=run_id))


def _place(job: Job, run_id: str, workers: Workers) -> corpus_shards.Place | None:
    """Where several workers find what each tokenised; one keeps it on its disk alone."""
    if workers.size == 1:
        return None
    # Of this run, and the same for all of its workers on this machine.
    shared = job.settings.scratch_dir / "portions" / digest(job.output.uri + run_id)
    return corpus_shards.Place(workers, job.output, run_id, shared)


@dataclass(frozen=True)
class Fit:
    """How the model and its adapter fit the device."""

    choice: choose.Choice
    again: Callable[[choose.Choice], choose.Choice]
    """how to go on with a run that began with this choice"""
    trainable_parameters: int
    total_parameters: int
    warnings: list[str]

    @property
    def is_sharded(self) -> bool:
        return self.choice.plan is not None and self.choice.plan.parts > 1


def _fit(job: Job, workers: Workers) -> Fit:
    """Raises DoesNotFitError when not even one block fits."""
    shape = job.base.shape()
    trainable = base_model.trainable_parameters(job.base, job.settings)
    has_engine = _has_engine(job)
    if job.settings.sharding == "fsdp" and not has_engine:
        raise SettingsError(
            f"QLORA_SHARDING=fsdp: {job.base.name} trains on the stock path, which holds the base "
            "whole; use QLORA_SHARDING=auto"
        )
    device, host_bytes = _weakest(job.device, workers)
    task = choose.Task(
        device,
        shape,
        trainable=trainable,
        effective=-(-job.settings.effective_batch_size // workers.size),
        block_tokens=job.settings.max_length,
        micro_batch=job.settings.batch_size,
        engine=has_engine,
        host_bytes=host_bytes,
    )
    choice = choose.choose_for(workers.size, job.settings.sharding, task)
    log.info("%s: %s (%s)", job.device.name, job.precision.name, job.precision.reason)
    log.info(
        "adapter of %s parameters, %.3f %% of %s",
        f"{trainable:,}",
        100 * trainable / shape.parameters,
        f"{shape.parameters:,}",
    )
    choose.tell(choice)
    warnings = []
    if job.device.kind == "cpu" and shape.parameters > SLOW_ON_A_CPU:
        warnings.append("there is no GPU: a model of this size trains for days on a CPU")
        log.warning("%s", warnings[-1])
    parts = 1 if choice.plan is None else choice.plan.parts
    again = partial(choose.again, task=replace(task, parts=parts))
    return Fit(choice, again, trainable, shape.parameters, warnings)


def _weakest(device: Device, workers: Workers) -> tuple[Device, int]:
    """The first worker's device and free host memory, with the least that any of them has: all
    plan the same, for micro-batches of different sizes would be other blocks."""
    free, host_bytes = workers.least(device.free_bytes, selftest.free_host_bytes())
    kind, name, capability = json.loads(
        workers.said_by_first(json.dumps([device.kind, device.name, device.capability]).encode())
    )
    return Device(kind, name, capability and (capability[0], capability[1]), free), host_bytes


def _has_engine(job: Job) -> bool:
    """Whether our engine trains this model; says so where it does not."""
    from trainer.engine import why_stock

    reason = why_stock(job.settings, job.base.config, job.precision, job.device)
    if reason is not None:
        log.info("%s trains on the stock path: %s", job.base.name, reason)
    return reason is None
