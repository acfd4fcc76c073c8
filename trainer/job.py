"""The story of one run: settings in, published adapter out."""

import contextlib
import logging
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.dataset import pipeline
from trainer.dataset.seen import seen_records
from trainer.distributed.workers import Workers
from trainer.documents import ask_first, judge_by_documents, publish_made
from trainer.evaluation import compare, gate
from trainer.evaluation.afterwards import Afterwards
from trainer.evaluation.judge import judge
from trainer.execution import ExecutionPlan, choose_execution
from trainer.models import adapter_files, hub, load
from trainer.models.locate import folder_of
from trainer.monitoring import trackers
from trainer.monitoring.counting import waiting
from trainer.monitoring.prometheus import Metrics
from trainer.planner.schedule import Schedule, log_schedule
from trainer.preflight import Job, check_judge_of, open_job, open_tokenizer, schedule_for
from trainer.reporting import run_files, run_record
from trainer.reporting.idle_settings import idle_settings
from trainer.reporting.outcome import log_outcome
from trainer.reporting.stand_in import before_training, stand_in
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.fingerprint import claim_run_id, released_if_refused
from trainer.runs.layout import RECORD, finished_at
from trainer.runs.publish import move_latest, publish_run, refuse_secrets, reject_run
from trainer.runtime import lean_imports
from trainer.runtime.log import figures
from trainer.runtime.naming import digest
from trainer.settings import Settings
from trainer.storage import read_manifest
from trainer.storage.files import only_process
from trainer.storage.lease import owner_of
from trainer.tokenization import corpus_shards, record_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer.models.frozen_base import WholeBase
    from trainer.training.keep import Kept
    from trainer.training.loop import TrainingResult

log = logging.getLogger(__name__)

WEIGHTS = "adapter/adapter_model.safetensors"
TENSORBOARD = "tensorboard"
SEEN_RECORDS = 3  # in the report


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run on this worker; a run that was killed has had several."""

    job: Job
    run_id: str
    scratch: Path
    """this worker's folder: checkpoints, and what is published"""
    metrics: Metrics
    tracking: trackers.Tracking
    workers: Workers


@dataclass(frozen=True)
class Model:
    """The base with its adapter, the tokenizer, and who holds the base's weights."""

    tuned: Any
    tokenizer: "PreTrainedTokenizerBase"
    frozen_base: "WholeBase"


def run(settings: Settings, workers: Workers | None = None) -> str:
    """Train, evaluate and publish; returns the run's id. Raises JobError.

    A run that is already finished is left as it is.
    """
    with Metrics(settings) as metrics:
        return _run(settings, metrics, workers or Workers())


def _run(settings: Settings, metrics: Metrics, workers: Workers) -> str:
    job = open_job(settings)
    run_id = claim_run_id(job.output, settings, job.fingerprint)
    # Not by the run id alone: a user may give the same one to another run elsewhere.
    name = f"{run_id}-{digest(job.fingerprint)}"
    scratch = settings.scratch_dir / "runs" / workers.per_worker_name(name)
    with only_process(scratch), released_if_refused(job.output, run_id):
        if read_manifest(job.output, run_id) is None:
            with (
                workers.session(name, minutes=settings.storage_retry_minutes),
                trackers.Tracking(settings, run_id, scratch / TENSORBOARD) as tracker,
            ):
                _train_and_publish(
                    Start(
                        job=job,
                        run_id=run_id,
                        scratch=scratch,
                        metrics=metrics,
                        tracking=tracker,
                        workers=workers,
                    )
                )
        else:
            log.info("run %s is already finished; nothing to do", run_id)
        # Also by a later start: a kill may have come between the publishing and this.
        record = job.output.read(f"{run_id}/{RECORD}")
        move_latest(job.output, run_id, finished=finished_at(record))
        corpus_shards.delete_shards(job.output, run_id)
        if settings.hub_repo:
            hub.push_published(job.output, run_id, scratch / "hub", settings)
        if workers.is_main:
            log_outcome(record, f"{job.output.uri}{run_id}", folder_of(settings, job.base))
    return run_id


def _train_and_publish(start: Start) -> None:
    """The steps of a run; the first worker alone goes on after the training."""
    start = replace(start, job=ask_first(start.job, start.run_id, start.scratch, start.workers))
    if start.workers.is_main:
        check_judge_of(start.job, start.run_id)
    _import_training()
    tokenizer = open_tokenizer(start.job.base, start.job.settings)
    data = _prepare_data(start, tokenizer)
    record_tokenizer.settle_answers(tokenizer, thinks=data.thinks)
    schedule = schedule_for(start.job.settings, start.job.base, data)
    _log_decisions(start.job, data, schedule)
    execution = _choose_execution(start, schedule)
    model = _load_model(start, tokenizer, execution)
    if start.workers.is_main:
        _rehearse_the_end(start, data, model, schedule, execution)
    trained = _train(start, data, model, schedule, execution)
    if not start.workers.is_main:
        model.frozen_base.serve_gathers()
        return
    with model.frozen_base.gather_for_main(model.tuned):
        kept = _keep_best(start, data, model, trained)
        found = judge_by_documents(start.job, model.tuned, tokenizer, kept.evaluation, trained)
        kept = replace(kept, evaluation=found)
        folder = _save_adapter(start, model, start.scratch / "run")
        faults = _gate(start, folder, data, model, kept.evaluation)
    kept = replace(kept, evaluation=judge(kept.evaluation, start.job.settings))
    start.tracking.finish(kept.evaluation.figures())
    _describe(start, tokenizer, folder, data, schedule, execution, trained, kept, faults)
    _publish(start, folder, faults)


@waiting("getting ready")
def _import_training() -> None:
    """Here and not where it is used: once it is there, memory is collected as usual."""
    # transformers greets W&B's offline mode on stdout
    with contextlib.redirect_stdout(None), lean_imports.without_wandb():
        from trainer.training import loop  # noqa: F401
    lean_imports.collect_as_usual()


@waiting("reading the data")
def _prepare_data(start: Start, tokenizer: "PreTrainedTokenizerBase") -> pipeline.Data:
    job, scratch = start.job, start.job.settings.scratch_dir
    shards = corpus_shards.location(start.workers, job.output, start.run_id, scratch)
    return pipeline.prepare(job.settings, job.inputs, tokenizer, shards)


def _log_decisions(job: Job, data: pipeline.Data, schedule: Schedule) -> None:
    """What was decided from the data, and which settings that leaves without effect."""
    log_schedule(schedule)
    counts = run_record.DataCounts.from_json(data.counts)
    for sentence in idle_settings(job.settings, job.base, counts):
        log.warning("%s", sentence)


def _choose_execution(start: Start, schedule: Schedule) -> ExecutionPlan:
    job = start.job
    return choose_execution(
        job.settings,
        job.base,
        job.device,
        job.precision,
        start.workers,
        step_blocks=schedule.step_blocks,
    )


def _load_model(
    start: Start, tokenizer: "PreTrainedTokenizerBase", execution: ExecutionPlan
) -> Model:
    job, frozen = start.job, execution.frozen_base(start.workers)
    quantised = load.load_base(job.base, job.settings, job.precision, job.device, frozen)
    return Model(load.attach_adapter(quantised, job.settings), tokenizer, frozen)


@waiting("getting ready")
def _rehearse_the_end(
    start: Start, data: pipeline.Data, model: Model, schedule: Schedule, execution: ExecutionPlan
) -> None:
    """What can fail once there is a result is tried while there is nothing to lose."""
    trained, kept = stand_in(data.questions, execution.execution)
    with before_training():
        folder = _save_adapter(start, model, start.scratch / "rehearsal")
        _describe(start, model.tokenizer, folder, data, schedule, execution, trained, kept, [])
        refuse_secrets(folder, start.run_id)
        shutil.rmtree(folder)


def _train(
    start: Start, data: pipeline.Data, model: Model, schedule: Schedule, execution: ExecutionPlan
) -> "TrainingResult":
    from trainer.training.loop import train
    from trainer.training.setup import TrainingSetup

    job = start.job
    return train(
        TrainingSetup(
            model=model.tuned,
            tokenizer=model.tokenizer,
            blocks=data.train,
            held_out=data.held_out,
            loss_name=data.loss_name,
            afterwards=Afterwards.of(
                data, model.tokenizer, with_passages=bool(job.inputs.documents)
            ),
            teaches_answers=data.counts["records"] > 0,
            settings=job.settings,
            precision=job.precision,
            device=job.device,
            schedule=schedule,
            execution=execution.execution,
            workers=start.workers,
            frozen_base=model.frozen_base,
        ),
        replan_on_resume=execution.replan_on_resume,
        checkpoints=Checkpoints(
            start.scratch / "checkpoints",
            job.output,
            f"{start.run_id}/checkpoints",
            job.fingerprint,
            owner_of(start.scratch),
        ),
        metrics=start.metrics,
        tracking=start.tracking,
    )


def _keep_best(
    start: Start, data: pipeline.Data, model: Model, trained: "TrainingResult"
) -> "Kept":
    """The better one of the last and an earlier adapter, which the model has then."""
    from trainer.training.keep import keep_best

    job, steps, keep = start.job, trained.steps, start.job.settings.keep

    def evaluate(base: compare.Scores | None) -> compare.Evaluation:
        return compare.compare(
            model.tuned,
            model.tokenizer,
            data.held_out,
            data.questions,
            data.trained_questions,
            stored=job.base.stored_dtype(),
            base=base,
            how=job.asking(trained.seconds),
            by=data.held_out_by,
        )

    return keep_best(model.tuned, trained.earlier, evaluate, last_step=steps, keep=keep)


def _save_adapter(start: Start, model: Model, folder: Path) -> Path:
    """The folder of all that will be published, with nothing else in it."""
    shutil.rmtree(folder, ignore_errors=True)
    adapter_files.save_adapter(model.tuned, model.tokenizer, start.job.base, folder / "adapter")
    publish_made(start.job, folder)
    return folder


def _gate(
    start: Start, folder: Path, data: pipeline.Data, model: Model, evaluation: compare.Evaluation
) -> list[str]:
    """What forbids to publish."""
    return gate.rejection_reasons(
        folder / "adapter",
        model.tuned,
        start.job.base,
        evaluation,
        train=data.train,
        held_out=data.held_out,
        ends=record_tokenizer.stop_ids(model.tokenizer),
        settings=start.job.settings,
        counts=data.counts,
    )


def _describe(
    start: Start,
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    data: pipeline.Data,
    schedule: Schedule,
    execution: ExecutionPlan,
    trained: "TrainingResult",
    kept: "Kept",
    faults: list[str],
) -> None:
    """Everything beside the weights: report, model card, `run.json`, metrics, event files."""
    if (start.scratch / TENSORBOARD).is_dir():
        shutil.copytree(start.scratch / TENSORBOARD, folder / TENSORBOARD)
    job = start.job
    run_files.write(
        run_files.Run(
            run_id=start.run_id,
            settings=job.settings,
            base=job.base,
            inputs=job.inputs.objects(),
            data=data.counts,
            seen=seen_records(data.trained, tokenizer, SEEN_RECORDS),
            device=job.device,
            precision=job.precision,
            schedule=schedule,
            micro_batch=trained.execution,
            trainable_parameters=execution.trainable_parameters,
            total_parameters=execution.total_parameters,
            trained=trained,
            evaluation=kept.evaluation,
            kept_step=kept.step,
            kept_because=kept.reason,
            held_out_blocks=len(data.held_out),
            warnings=[*start.job.notes, *execution.warnings],
            faults=faults,
            finished=time.time(),
            ends=record_tokenizer.stop_ids(tokenizer),
        ),
        folder,
    )


def _publish(start: Start, folder: Path, faults: list[str]) -> None:
    """Raises RejectedError, with the report kept beside the runs, where there are `faults`."""
    output, run_id = start.job.output, start.run_id
    if faults:
        reject_run(folder, output, run_id, faults)
    publish_run(folder, output, run_id, owner=owner_of(start.scratch), weights=WEIGHTS)
    log.info("published %s%s", output.uri, run_id, extra=figures(run_id=run_id))
