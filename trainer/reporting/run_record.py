"""What a run publishes: adapter with tokenizer and model card, metrics, report, `run.json`.

Nothing here is a pickle, holds a secret or names a path of this machine.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import __version__
from trainer.monitoring.step_log import as_lines
from trainer.reporting.caveats import remarks
from trainer.reporting.charts import png
from trainer.reporting.html_report import charts, render_report
from trainer.reporting.model_card import CURVES, render_card
from trainer.runs.library_versions import library_versions

if TYPE_CHECKING:
    from trainer.evaluation.compare import Evaluation
    from trainer.models.base_model import Base
    from trainer.planner.choose import Execution
    from trainer.runtime.device import Device, Precision
    from trainer.settings import Settings
    from trainer.training.loop import TrainingResult

SAMPLES = 10
RECORD = "run.json"


@dataclass(frozen=True)
class Run:
    """Everything that is known about a run when it has trained: the content of `run.json`."""

    run_id: str
    settings: "Settings"
    base: "Base"
    inputs: list[dict[str, Any]]
    data: dict[str, Any]
    device: "Device"
    precision: "Precision"
    micro_batch: "Execution"
    trainable_parameters: int
    total_parameters: int
    trained: "TrainingResult"
    evaluation: "Evaluation"
    warnings: list[str]
    faults: list[str]
    """why it was rejected; empty for an adapter that is published"""
    finished: float
    """seconds since the epoch"""

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        training = asdict(self.trained) | {"loss": self.trained.loss}
        del training["history"], training["execution"]
        best = self.trained.best
        return {
            "run_id": self.run_id,
            "version": __version__,
            "finished": self.finished,
            "settings": self.settings.to_dict(),
            "base": {"name": self.base.name, "revision": self.base.revision},
            "inputs": self.inputs,
            "data": self.data,
            "device": {"name": self.device.name, "capability": self.device.capability},
            "precision": asdict(self.precision),
            "micro_batch": self.micro_batch.to_json(),
            "parameters": {
                "trainable": self.trainable_parameters,
                "total": self.total_parameters,
                "trainable_percent": round(
                    100 * self.trainable_parameters / self.total_parameters, 4
                ),
            },
            "training": training
            | {
                "best_held_out_loss": best and best["held_out_loss"],
                "best_held_out_step": best and best["step"],
            },
            "evaluation": {
                "questions": len(self.evaluation.questions),
                "base": self.evaluation.base.figures(),
                "tuned": self.evaluation.tuned.figures(),
            },
            "samples": self.evaluation.samples(SAMPLES),
            "warnings": [*self.warnings, *remarks(self.data, self.trained, self.evaluation)],
            "rejected": self.faults,
            "libraries": library_versions(),
        }


def describe(run: Run, folder: Path) -> None:
    """Everything beside the weights in `folder`: metrics, `run.json`, report and model card."""
    rows = run.trained.history
    (folder / "metrics.jsonl").write_text(as_lines(rows))
    record = run.record()
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (folder / "report.html").write_text(render_report(record, rows))
    (folder / "adapter" / "README.md").write_text(render_card(record, run.base))
    (folder / "adapter" / CURVES).write_bytes(png(charts(record, rows)))
