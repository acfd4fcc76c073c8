"""What a run publishes beside the weights: metrics, `run.json`, report, model card with curves.

Nothing here is a pickle, holds a secret or names a path of this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import __version__
from trainer.dataset.seen import shortened
from trainer.monitoring.step_log import as_lines
from trainer.reporting.caveats import find_caveats
from trainer.reporting.charts import png
from trainer.reporting.html_report import charts, render_report
from trainer.reporting.idle_settings import idle_settings
from trainer.reporting.model_card import CURVES, render_card
from trainer.reporting.recorded_evaluation import RecordedEvaluation
from trainer.reporting.run_record import (
    DataCounts,
    InputFile,
    MicroBatch,
    ParameterCounts,
    RecordedBase,
    RecordedDevice,
    RecordedSchedule,
    RecordedSettings,
    RunRecord,
    TrainingFigures,
)
from trainer.runs.layout import RECORD
from trainer.runs.library_versions import library_versions
from trainer.runtime.wording import as_typed

if TYPE_CHECKING:
    from trainer.dataset.seen import SeenRecord
    from trainer.evaluation.compare import Evaluation
    from trainer.models.base_model import Base
    from trainer.planner.choose import Execution
    from trainer.planner.schedule import Schedule
    from trainer.runtime.device import Device, Precision
    from trainer.settings import Settings
    from trainer.training.loop import TrainingResult

SAMPLES = 10


@dataclass(frozen=True)
class Run:
    """A run that has trained and was judged, as the other wings know it."""

    run_id: str
    settings: "Settings"
    base: "Base"
    inputs: Sequence[dict[str, Any]]
    """name, size in bytes and SHA-256 of each file"""
    data: dict[str, Any]
    """the counts of `DataCounts`"""
    seen: Sequence["SeenRecord"]
    device: "Device"
    precision: "Precision"
    schedule: "Schedule"
    micro_batch: "Execution"
    trainable_parameters: int
    total_parameters: int
    trained: "TrainingResult"
    evaluation: "Evaluation"
    kept_step: int
    """of `trained`: whose adapter this is, and why"""
    kept_because: str
    held_out_blocks: int
    warnings: Sequence[str]
    faults: Sequence[str]
    """why it was rejected; empty for an adapter that is published"""
    finished: float
    """seconds since the epoch"""
    ends: Sequence[int] = ()
    """the tokens that end an answer"""

    def record(self) -> RunRecord:
        """What of it is written down."""
        counts = DataCounts.from_json(self.data)
        caveats = find_caveats(
            counts,
            self.trained.history,
            self.evaluation,
            self.settings,
            kept_step=self.kept_step,
        )
        said = [*self.warnings, *caveats, *idle_settings(self.settings, self.base, counts)]
        return RunRecord(
            run_id=self.run_id,
            version=__version__,
            finished=self.finished,
            settings=RecordedSettings.from_json(self.settings.to_dict()),
            base=RecordedBase(self.base.name, self.base.revision),
            inputs=[InputFile.from_json(file) for file in self.inputs],
            data=counts,
            device=RecordedDevice(self.device.name, self.device.capability),
            precision=self.precision,
            schedule=RecordedSchedule.from_json(self.schedule.to_json()),
            micro_batch=MicroBatch.from_json(self.micro_batch.to_json()),
            parameters=ParameterCounts.of(self.trainable_parameters, self.total_parameters),
            training=_training_figures(self),
            evaluation=RecordedEvaluation.of(self.evaluation),
            samples=self.evaluation.samples(SAMPLES),
            warnings=[*map(as_typed, said)],
            rejected=[*map(as_typed, self.faults)],
            libraries=library_versions(),
            seen=[replace(shown, pieces=shortened(shown.pieces)) for shown in self.seen],
        )


def write(run: Run, folder: Path) -> None:
    """Everything beside the weights in `folder`: metrics, `run.json`, report and model card."""
    rows = run.trained.history
    (folder / "metrics.jsonl").write_text(as_lines(rows), encoding="utf-8")
    record = run.record()
    (folder / RECORD).write_text(record.as_text(), encoding="utf-8")
    (folder / "report.html").write_text(render_report(record, rows), encoding="utf-8")
    (folder / "adapter" / "README.md").write_text(
        render_card(record, run.base, run.ends), encoding="utf-8"
    )
    (folder / "adapter" / CURVES).write_bytes(png(charts(record, rows)))


def _training_figures(run: Run) -> TrainingFigures:
    trained = run.trained
    best = trained.best or {}
    return TrainingFigures(
        steps=trained.steps,
        seconds=trained.seconds,
        tokens_per_s=trained.tokens_per_s,
        vram_peak_gib=trained.vram_peak_gib,
        loss=trained.loss,
        best_held_out_loss=best.get("held_out_loss"),
        best_held_out_step=best.get("step"),
        planned_steps=trained.planned_steps,
        kept_step=run.kept_step,
        kept_because=as_typed(run.kept_because),
        held_out_blocks=run.held_out_blocks,
        measured_blocks=trained.measured_blocks,
    )
