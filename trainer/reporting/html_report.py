"""The run as a page for a person: `report.html`, one file that loads nothing and runs nothing."""

import html
import time
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.evaluation.answer_metrics import same_answer
from trainer.monitoring.step_log import StepRow
from trainer.reporting.charts import Chart, Line, Point, smoothed, svg
from trainer.reporting.report_style import STYLE

MOST_FILES = 100
MANY_STEPS = 30  # from here on a smoothed curve says more than the bare one
_KINDS = {
    "conversation": "questions with answers or conversations",
    "completion": "prompts with completions",
    "text": "texts",
}
Pairs = Iterable[tuple[str, Any]]


def render_report(record: dict[str, Any], rows: Sequence[StepRow]) -> str:
    """`record` is `run.json`, `rows` are those of `metrics.jsonl`."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(record['run_id'])}</title><style>{STYLE}</style></head><body>",
            _header(record),
            _cards(record),
            _notes("Rejected", "bad", record["rejected"]),
            _notes("Worth knowing", "note", record["warnings"]),
            _section("Curves", _curves(record, rows)),
            _section("Answers before and after", _samples(record)),
            _section("What it was trained on", _table(_data(record))),
            _section("How it was trained", _table(_training(record))),
            _section("Settings", _table(record["settings"].items())),
            _section("Input files", _table(_files(record["inputs"]))),
            _section("Libraries", _table(record["libraries"].items())),
            "</body></html>\n",
        ]
    )


def charts(record: dict[str, Any], rows: Sequence[StepRow]) -> list[Chart]:
    """The run's curves, for the report and the model card."""
    loss = _points(rows, "loss")
    bare = [Line("", loss, "faint")] if len(loss) >= MANY_STEPS else []
    drawn = smoothed(loss) if bare else loss
    base = record["evaluation"]["base"]["loss"]
    level = [Line("base", [(rows[0]["step"], base)], "second", "level")] if rows and base else []
    held_out = Line("held-out", _points(rows, "held_out_loss"), "second", "dots")
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


def _curves(record: dict[str, Any], rows: Sequence[StepRow]) -> str:
    return f'<div class="curves">{"".join(svg(chart) for chart in charts(record, rows))}</div>'


def _header(record: dict[str, Any]) -> str:
    verdict = '<span class="bad">rejected</span>' if record["rejected"] else "accepted"
    finished = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(record["finished"]))
    base = record["base"]["name"]
    return (
        f"<header><h1>{_text(record['run_id'])}</h1><p>LoRA adapter for <b>{_text(base)}</b>, "
        f"{verdict}, finished {finished}</p></header>"
    )


def _cards(record: dict[str, Any]) -> str:
    base, tuned = record["evaluation"]["base"], record["evaluation"]["tuned"]
    training = record["training"]
    change = [
        ("held-out loss", _change(base, tuned, "loss", ".3f")),
        ("exact answers", _change(base, tuned, "exact", ".0%")),
        ("token F1", _change(base, tuned, "f1", ".0%")),
        ("stopped by itself", _change(base, tuned, "stopped", ".0%")),
    ]
    speed = [
        ("optimizer steps", f"{training['steps']:,}"),
        ("training time", _duration(training["seconds"])),
        ("tokens/s", f"{training['tokens_per_s']:,.0f}"),
        ("peak GPU memory", _gib(training["vram_peak_gib"])),
    ]
    boxes = "".join(
        f'<div class="card"><b>{_text(value)}</b>{_text(name)}</div>'
        for name, value in [*change, *speed]
        if value is not None
    )
    return f'<div class="cards">{boxes}</div>'


def _change(base: dict[str, Any], tuned: dict[str, Any], name: str, form: str) -> str | None:
    if base[name] is None and tuned[name] is None:
        return None
    before, after = (
        "-" if score[name] is None else format(score[name], form) for score in (base, tuned)
    )
    return f"{before} → {after}"


def _notes(title: str, kind: str, notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{_text(_sentence(note))}</li>" for note in notes)
    return f'<aside class="{kind}"><h2>{title}</h2><ul>{items}</ul></aside>'


def _samples(record: dict[str, Any]) -> str:
    asked = record["evaluation"]["questions"]
    if not asked:
        return "<p>There was no held-out question to ask.</p>"
    shown = record["samples"]
    intro = (
        f"<p>{len(shown)} of {asked} held-out questions, which training has not seen; where there "
        "are wrong answers, some are among them.</p>"
    )
    return intro + "".join(_sample(row) for row in shown)


def _sample(row: dict[str, str]) -> str:
    cells = "".join(
        f"<div><dt>{words}</dt><dd>{_text(row[name])}</dd></div>"
        for name, words in (
            ("reference", "expected"),
            ("base", _marked("before", row["base"], row["reference"])),
            ("tuned", _marked("after", row["tuned"], row["reference"])),
        )
    )
    return f"<article><h3>{_text(row['question'])}</h3><dl>{cells}</dl></article>"


def _marked(words: str, given: str, reference: str) -> str:
    if same_answer(given, reference):
        return f'{words} <span class="good" title="exactly as expected">✓</span>'
    return words


def _data(record: dict[str, Any]) -> Pairs:
    yield "data", record["settings"]["data_uri"]
    if record["settings"]["eval_uri"]:
        yield "evaluation data", record["settings"]["eval_uri"]
    data = record["data"]
    yield "read", read_from(data)
    yield "left out", f"{data['duplicates']:,} copies, {data['near_duplicates']:,} near copies"
    yield "skipped", _listed(data["skipped"], data["skipped_first"])
    yield "assumed", _listed(len(data["assumed_first"]), data["assumed_first"])
    yield "tokens", f"{data['tokens']:,}, of which {data['trained_tokens']:,} are trained"
    yield (
        "blocks",
        f"{data['blocks']:,} of {record['settings']['max_length']:,} tokens, "
        f"{data['padding_share']:.1%} padding",
    )
    yield (
        "records cut to fit a block",
        f"{data['truncated'] + data['fully_masked']:,} of {data['records']:,} records",
    )
    yield "ends of answers and documents", f"{data['trained_ends']:,} trained"
    yield "held out", f"{data['held_out']:,} records or documents"


def read_from(data: dict[str, Any]) -> str:
    """What was read, in words."""
    read = [f"{data[kind]:,} {words}" for kind, words in _KINDS.items() if data.get(kind)]
    return f"{', '.join(read)} from {data['files']:,} files"


def _listed(count: int, first: Sequence[str]) -> str:
    more = [f"{count - len(first):,} more"] if count > len(first) else []
    return f"{count:,}" + (f": {'; '.join([*first, *more])}" if count else "")


def _training(record: dict[str, Any]) -> Pairs:
    training, best = record["training"], record["training"]["best_held_out_step"]
    yield "base model", f"{record['base']['name']} at {record['base']['revision']}"
    yield "device", record["device"]["name"]
    yield "precision", _decision(record["precision"], "name")
    yield "micro-batch", f"{_decision(record['micro_batch'], 'blocks')}"
    parameters = record["parameters"]
    yield (
        "trained parameters",
        f"{parameters['trainable']:,} of {parameters['total']:,}, "
        f"{parameters['trainable_percent']} %",
    )
    yield "optimizer steps", training["steps"]
    yield "training time", _duration(training["seconds"])
    yield "training loss at the end", training["loss"]
    if best is not None:
        yield "best held-out loss", f"{training['best_held_out_loss']:.4f} at step {best:,}"
    yield "version of this program", record["version"]


def _files(inputs: Sequence[dict[str, Any]]) -> Pairs:
    for file in inputs[:MOST_FILES]:
        yield file["name"], f"{file['size']:,} bytes, SHA-256 {file['sha256'][:16]}…"
    if len(inputs) > MOST_FILES:
        yield "…", f"{len(inputs) - MOST_FILES:,} more, in run.json"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _table(pairs: Pairs) -> str:
    rows = "".join(
        f"<tr><th>{_text(str(name).replace('_', ' '))}</th><td>{_text(_plain(value))}</td></tr>"
        for name, value in pairs
    )
    return f"<table>{rows}</table>"


def _decision(record: dict[str, Any], name: str) -> str:
    return f"{record[name]} ({record['reason']})"


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


def _text(value: Any) -> str:
    return html.escape(str(value))
