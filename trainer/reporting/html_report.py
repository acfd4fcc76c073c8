"""The run as a page for a person: `report.html`, one file that loads nothing and runs nothing."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.dataset.holdout import HELD_OUT_LOSS, HeldOutBy, loss_name
from trainer.evaluation.compare import SCORES, Score
from trainer.evaluation.retrieval import table
from trainer.monitoring.step_log import StepRow
from trainer.reporting.charts import Chart, Line, Point, smoothed, svg
from trainer.reporting.data_section import data_rows, file_type_rows, schedule_rows, title
from trainer.reporting.recorded_evaluation import RecordedEvaluation
from trainer.reporting.run_record import (
    DataCounts,
    InputFile,
    RunRecord,
    TrainingFigures,
)
from trainer.reporting.summary import others, summary
from trainer.runtime.templates import render
from trainer.runtime.wording import counted

TEMPLATE = Path(__file__).with_name("report.html.jinja")
MOST_FILES = 100
MANY_STEPS = 30  # from here on a smoothed curve says more than the bare one
Pairs = Iterable[tuple[str, Any]]


def render_report(record: RunRecord, rows: Sequence[StepRow]) -> str:
    """The page; `rows` are those of `metrics.jsonl`, one for each optimizer step."""
    return render(
        TEMPLATE,
        record=record,
        finished=time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(record.finished)),
        cards=[(label, text) for label, text in _cards(record) if text is not None],
        summary=summary(record),
        rejected=[_sentence(fault) for fault in record.rejected],
        warnings=[_sentence(caveat) for caveat in others(record)],
        asked=asked(record.data),
        sure=record.evaluation.sure(record.data.held_out_by),
        with_passages=_with_passages(record.evaluation),
        curves=[svg(chart) for chart in charts(record, rows)],
        data=_cells(data_rows(record.settings, record.data)),
        file_types=file_type_rows(record.data),
        seen=[(title(shown), shown.pieces) for shown in record.seen],
        training=_cells(_training(record)),
        settings=_cells(record.settings.recorded.items()),
        files=_cells(_files(record.inputs)),
        libraries=_cells(record.libraries.items()),
    )


def charts(record: RunRecord, rows: Sequence[StepRow]) -> list[Chart]:
    """The run's curves, for the report and the model card."""
    loss = _points(rows, "loss")
    bare = [Line("", loss, "faint")] if len(loss) >= MANY_STEPS else []
    drawn = smoothed(loss) if bare else loss
    base, training = record.evaluation.base.loss, record.training
    # The base's loss is of all held-out blocks, and no level for the curve of a few.
    is_part = training.measured_blocks != training.held_out_blocks
    level = []
    if rows and base and not is_part:
        level = [Line("base", [(rows[0]["step"], base)], "second", "level")]
    is_trained = record.data.held_out_by == HeldOutBy.NOTHING
    name = "without dropout" if is_trained else "part of held-out" if is_part else "held-out"
    held_out = Line(name, _points(rows, "held_out_loss"), "second", "dots")
    return [
        Chart("Loss", [*bare, *level, Line("training", drawn), held_out]),
        Chart("Learning rate", [Line("", _points(rows, "learning_rate"))]),
        Chart("Tokens/s", [Line("", _speed(rows))]),
        Chart("Peak memory so far, GiB", [Line("", _points(rows, "memory_gib"))]),
    ]


def _points(rows: Sequence[StepRow], name: str) -> list[Point]:
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def _speed(rows: Sequence[StepRow]) -> list[Point]:
    """Of each step; the rows have the mean since the start."""
    points, tokens, seconds = [], 0.0, 0.0
    for row in rows:
        done, now = row.get("tokens_per_s", 0.0) * row.get("seconds", 0.0), row.get("seconds", 0.0)
        if now > seconds:
            points.append((row["step"], (done - tokens) / (now - seconds)))
        tokens, seconds = done, now
    return points


def _cards(record: RunRecord) -> Iterator[tuple[str, str | None]]:
    name = loss_name(record.data.held_out_by)
    for score in SCORES:
        if score.headline is not None:
            label = name if score.label == HELD_OUT_LOSS else score.label
            yield label, _change(record.evaluation, score, score.headline)
    training = record.training
    yield "optimizer steps", f"{training.steps:,}"
    yield "training time", _duration(training.seconds)
    yield "tokens/s", f"{training.tokens_per_s:,.0f}"
    yield "peak GPU memory", _gib(training.vram_peak_gib)


def _change(evaluation: RecordedEvaluation, score: Score, form: str) -> str | None:
    values = score.of(evaluation.base), score.of(evaluation.tuned)
    if values == (None, None):
        return None
    before, after = ("-" if value is None else format(value, form) for value in values)
    return f"{before} → {after}"


def _with_passages(evaluation: RecordedEvaluation) -> list[list[str]]:
    found = evaluation.with_passages
    if found is None:
        return []
    return table(evaluation.base, evaluation.tuned, evaluation.questions, found)


def asked(data: DataCounts) -> str:
    """Which questions were asked, in words."""
    if data.held_out_by == HeldOutBy.NOTHING:
        return "questions, all of which were trained"
    if data.held_out_by == HeldOutBy.WORDINGS:
        return "held-out questions about facts that were trained in other words"
    return "held-out questions, which training has not seen"


def _training(record: RunRecord) -> Pairs:
    training, parameters = record.training, record.parameters
    precision, micro_batch = record.precision, record.micro_batch
    yield "base model", f"{record.base.name} at {record.base.revision}"
    yield "device", record.device.name
    yield "precision", f"{precision.name} ({precision.reason})"
    yield "micro-batch", f"{micro_batch.blocks} ({micro_batch.reason})"
    yield from schedule_rows(record.schedule)
    yield (
        "trained parameters",
        f"{parameters.trainable:,} of {parameters.total:,}, {parameters.trainable_percent} %",
    )
    yield "optimizer steps", _steps(training, loss_name(record.data.held_out_by))
    yield "training time", _duration(training.seconds)
    yield "training loss at the end", training.loss
    name = loss_name(record.data.held_out_by)
    if training.best_held_out_step is not None:
        best = f"{training.best_held_out_loss:.4f} at step {training.best_held_out_step:,}"
        yield f"best {name}", best
    if training.kept_step is not None:
        yield "adapter", f"of step {training.kept_step:,}: {training.kept_because}"
    if training.held_out_blocks:
        yield f"{name} of the curve", _measured(training, is_trained=name != HELD_OUT_LOSS)
    if (judge := record.evaluation.judge) is not None:
        asked = record.evaluation.questions
        yield "judge", f"{judge.model}: {judge.questions} of {counted(asked, 'held-out question')}"
    yield "version of this program", record.version


def _steps(training: TrainingFigures, judged_by: str) -> str:
    if training.planned_steps is None or training.planned_steps == training.steps:
        return f"{training.steps:,}"
    of = f"{training.steps:,} of {training.planned_steps:,}"
    return f"{of}: ended early, for the {judged_by} rose"


def _measured(training: TrainingFigures, *, is_trained: bool) -> str:
    """Why its last point is not the loss above."""
    measured, blocks = training.measured_blocks, training.held_out_blocks
    kind = "trained blocks, without dropout" if is_trained else "held-out blocks"
    if measured == blocks:
        return f"of all {blocks:,} {kind}, as the scores above"
    return f"of {measured:,} of {blocks:,} {kind}; the scores above are of all"


def _files(inputs: Sequence[InputFile]) -> Pairs:
    for file in inputs[:MOST_FILES]:
        yield file.name, f"{file.size:,} bytes, SHA-256 {file.sha256[:16]}…"
    if len(inputs) > MOST_FILES:
        yield "…", f"{len(inputs) - MOST_FILES:,} more, in run.json"


def _cells(pairs: Pairs) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _plain(value)) for name, value in pairs]


def _plain(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) or "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:] + "."


def _gib(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} GiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
