"""Where else a run's figures go: TensorBoard files, MLflow, Weights & Biases, by QLORA_REPORT_TO.

None of them is needed: a tracker that fails is named once and left out, and one that is slow only
fills a queue. transformers' own callbacks are not used, for they record every training argument,
with local paths, and nothing of the evaluation.
"""

import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import SettingsError
from trainer.monitoring.step_log import StepRow
from trainer.runtime.log import one_line
from trainer.settings import Settings

log = logging.getLogger(__name__)

PROJECT = "qlora-job"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME name another
FINISH_TIMEOUT_S = 60.0  # for what is still queued when the run is finished
STOP_TIMEOUT_S = 2.0  # when it was stopped


class Tracker(Protocol):
    """One place that figures go to. Every call comes from the same thread."""

    def start(self, rows: Sequence[StepRow]) -> None:
        """Begin, or go on after `rows`, which an earlier start of this run has reported."""

    def log(self, row: StepRow) -> None: ...

    def finish(self, scores: StepRow | None) -> None:
        """`scores` are of the evaluation; None when the run was stopped."""


class Tracking:
    """All trackers of a run, fed by a thread of their own.

    `with Tracking(settings, run_id, folder) as tracking:`; `folder` is for local files.
    """

    def __init__(self, settings: Settings, run_id: str, folder: Path) -> None:
        self._run = (run_id, settings.to_dict(), folder)
        self._names = settings.report_to
        self._queue: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._finished = False

    def __enter__(self) -> "Tracking":
        if self._names:
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._names and not self._finished:
            self._end(None, STOP_TIMEOUT_S)

    def start(self, rows: Sequence[StepRow]) -> None:
        self._queue.put(lambda tracker: tracker.start(rows))

    def log(self, row: StepRow) -> None:
        self._queue.put(lambda tracker: tracker.log(row))

    def finish(self, scores: StepRow) -> None:
        """The last figures; returns when they are out, or after FINISH_TIMEOUT_S."""
        if self._names:
            self._end(scores, FINISH_TIMEOUT_S)

    def _end(self, scores: StepRow | None, timeout_s: float) -> None:
        self._finished = True
        self._queue.put(lambda tracker: tracker.finish(scores))
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("%s did not take all figures in time", ", ".join(self._names))

    def _work(self) -> None:
        trackers: dict[str, Tracker] = {}
        for name in self._names:
            try:
                trackers[name] = TRACKERS[name].make(*self._run)
            except Exception as error:
                _leave_out(name, error)
        while (call := self._queue.get()) is not None:
            for name, tracker in list(trackers.items()):
                try:
                    call(tracker)
                except Exception as error:
                    _leave_out(name, error)
                    del trackers[name]


def _leave_out(name: str, error: Exception) -> None:
    reason = one_line(error, most=200)
    log.warning("%s is left out: %s: %s", name, type(error).__name__, reason)


class TensorBoard:
    """Event files, published with the run. Written anew at each start, so that none is missing."""

    def __init__(self, run_id: str, config: dict[str, Any], folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._folder, self._run_id = folder, run_id
        self._writer = SummaryWriter(str(folder))

    def start(self, rows: Sequence[StepRow]) -> None:
        for row in rows:
            self.log(row)

    def log(self, row: StepRow) -> None:
        for name, value in _numbers(row).items():
            self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def finish(self, scores: StepRow | None) -> None:
        for name, value in _numbers(scores or {}).items():
            self._writer.add_scalar(name, value)
        self._writer.close()
        for file in self._folder.iterdir():  # its name has that of this machine
            file.rename(self._folder / f"events.out.tfevents.0.{self._run_id}")


class MLflow:
    """A run in the experiment MLFLOW_EXPERIMENT_NAME at MLFLOW_TRACKING_URI."""

    def __init__(self, run_id: str, config: dict[str, Any], folder: Path) -> None:
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._mlflow: Any = mlflow
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = mlflow.set_experiment(name).experiment_id
        found = mlflow.MlflowClient().search_runs(
            [experiment], f"tags.`{PROJECT}` = '{run_id}'", max_results=1
        )
        self._is_new = not found
        mlflow.start_run(
            run_id=found[0].info.run_id if found else None,
            run_name=run_id,
            tags={PROJECT: run_id},
            log_system_metrics=False,
        )
        if self._is_new:
            mlflow.log_params(config)

    def start(self, rows: Sequence[StepRow]) -> None:
        """What an earlier start has reported is there already, unless it began without."""
        for row in rows if self._is_new else ():
            self.log(row)

    def log(self, row: StepRow) -> None:
        self._mlflow.log_metrics(_numbers(row), step=row["step"])

    def finish(self, scores: StepRow | None) -> None:
        self._mlflow.log_metrics(_numbers(scores or {}))
        self._mlflow.end_run("KILLED" if scores is None else "FINISHED")


class WandB:
    """A run in WANDB_PROJECT; WANDB_MODE=offline writes it beside `folder`."""

    def __init__(self, run_id: str, config: dict[str, Any], folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # stdout is for our lines
        import wandb

        folder.parent.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            name=run_id,
            resume="allow",
            config=config,
            dir=str(folder.parent),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True
            ),
        )

    def start(self, rows: Sequence[StepRow]) -> None:
        for row in rows:
            if row["step"] >= self._run.step:
                self.log(row)

    def log(self, row: StepRow) -> None:
        self._run.log(_numbers(row), step=row["step"])

    def finish(self, scores: StepRow | None) -> None:
        self._run.summary.update(_numbers(scores or {}))
        self._run.finish(exit_code=0 if scores is not None else 1)


def _numbers(row: StepRow) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class TrackerKind:
    """What QLORA_REPORT_TO can name."""

    package: str
    """as it is imported; requirements-tracking.txt has it"""
    make: Callable[[str, dict[str, Any], Path], Tracker]
    """of the run's id, its settings and a folder for local files"""


# To add one: a class above, a line here, and its name in settings.TRACKERS.
TRACKERS = {
    "tensorboard": TrackerKind("tensorboard", TensorBoard),
    "mlflow": TrackerKind("mlflow", MLflow),
    "wandb": TrackerKind("wandb", WandB),
}


def check(settings: Settings) -> None:
    """Raises SettingsError when the package of a tracker is missing."""
    missing = [n for n in settings.report_to if not find_spec(TRACKERS[n].package)]
    if missing:
        raise SettingsError(
            f"QLORA_REPORT_TO={','.join(missing)}: not installed here; "
            "`pip install -r requirements-tracking.txt`, or leave it out"
        )
