"""The run as a page for a person: `report.html`, self-contained, and the adapter's model card."""

import html
from collections.abc import Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --ink: #2563eb; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; } th { font-weight: 600; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; }
.card { background: var(--soft); border-radius: .5rem; padding: .6rem .9rem; flex: 1 1 9rem; }
.card b { display: block; font-size: 1.35rem; } .wide { overflow-x: auto; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
pre { white-space: pre-wrap; margin: 0; font: inherit; }
@media print { body { max-width: none; } }
"""
_WIDTH, _HEIGHT, _MARGIN = 720, 220, 48


def render_report(record: dict[str, Any], rows: Sequence[dict[str, float]]) -> str:
    """`record` is `run.json`, `rows` are those of `metrics.jsonl`. The page loads nothing."""
    steps = [row["step"] for row in rows]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(record['run_id'])}</title><style>{_STYLE}</style>",
            f"<h1>Fine-tuning run {_text(record['run_id'])}</h1>",
            _cards(record),
            *[f"<p><strong>Rejected:</strong> {_text(f)}</p>" for f in record["rejected"]],
            *[f"<p><strong>Warning:</strong> {_text(w)}</p>" for w in record["warnings"]],
            "<h2>Training loss</h2>",
            _curve(steps, [row["loss"] for row in rows]),
            "<h2>Learning rate</h2>",
            _curve(steps, [row["learning_rate"] for row in rows]),
            _samples(record["samples"]),
            "<h2>Data</h2>",
            _table(record["data"].items()),
            "<h2>Training</h2>",
            _table(
                [
                    ("base model", f"{record['base']['name']} ({record['base']['revision']})"),
                    ("device", record["device"]["name"]),
                    ("precision", _decision(record["precision"], "name")),
                    ("micro-batch", _decision(record["micro_batch"], "blocks")),
                    *record["parameters"].items(),
                    *record["training"].items(),
                ]
            ),
            "<h2>Settings</h2>",
            _table(record["settings"].items()),
            "<h2>Input files</h2>",
            _table(
                [(o["name"], f"{o['size']:,} bytes, {o['sha256'][:16]}…") for o in record["inputs"]]
            ),
            "<h2>Libraries</h2>",
            _table(record["libraries"].items()),
            "</html>\n",
        ]
    )


def render_card(record: dict[str, Any]) -> str:
    """The adapter's `README.md`, with the hub's metadata on top."""
    base, scores = record["base"], record["evaluation"]
    lines = [
        "---",
        f"base_model: {base['name']}",
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags: [lora, qlora]",
        "---",
        "",
        f"# {record['run_id']}",
        "",
        f"A LoRA adapter for `{base['name']}` (revision `{base['revision']}`), trained on the "
        "base quantised to 4-bit NF4.",
        *[f"**This adapter was rejected:** {fault}." for fault in record["rejected"]],
        "",
        f"- Trainable parameters: {record['parameters']['trainable']:,} "
        f"({record['parameters']['trainable_percent']} % of {record['parameters']['total']:,})",
        f"- Steps: {record['training']['steps']:,}, "
        f"blocks of {record['settings']['max_length']} tokens",
        *_score_lines(scores),
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base["name"]}")',
        'tokenizer = AutoTokenizer.from_pretrained("<this folder>")',
        'model = PeftModel.from_pretrained(base, "<this folder>")',
        "```",
        "",
        "Questions go through the tokenizer's chat template, which is saved here.",
        "The adapter knows what its training data says; it can be wrong about everything else.",
        "",
    ]
    return "\n".join(lines)


def _score_lines(scores: dict[str, Any]) -> list[str]:
    lines = []
    base, tuned = scores["base"], scores["tuned"]
    if base["loss"] is not None:
        lines.append(f"- Held-out loss: {base['loss']:.4f} before, {tuned['loss']:.4f} after")
    if base["exact"] is not None:
        lines.append(
            f"- Exact answers on {scores['questions']} held-out questions: "
            f"{base['exact']:.0%} before, {tuned['exact']:.0%} after"
        )
    return lines


def _cards(record: dict[str, Any]) -> str:
    base, tuned = record["evaluation"]["base"], record["evaluation"]["tuned"]
    cards = []
    if base["loss"] is not None:
        cards.append(("held-out loss", f"{base['loss']:.3f} → {tuned['loss']:.3f}"))
    if base["exact"] is not None:
        cards.append(("exact answers", f"{base['exact']:.0%} → {tuned['exact']:.0%}"))
    training = record["training"]
    cards.append(("optimizer steps", f"{training['steps']:,}"))
    cards.append(("training time", _duration(training["seconds"])))
    cards.append(("tokens/s", f"{training['tokens_per_s']:,.0f}"))
    if training["vram_peak_gib"] is not None:
        cards.append(("peak GPU memory", f"{training['vram_peak_gib']:.1f} GiB"))
    boxes = "".join(f'<div class="card"><b>{_text(v)}</b>{_text(k)}</div>' for k, v in cards)
    return f'<div class="cards">{boxes}</div>'


def _samples(samples: Sequence[dict[str, str]]) -> str:
    if not samples:
        return ""
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td><pre>{_text(row[name])}</pre></td>"
            for name in ("question", "reference", "base", "tuned")
        )
        + "</tr>"
        for row in samples
    )
    return (
        "<h2>Answers before and after</h2><div class=wide><table><tr><th>Question<th>Reference"
        f"<th>Base model<th>Fine-tuned</tr>{rows}</table></div>"
    )


def _curve(steps: Sequence[float], values: Sequence[float]) -> str:
    """One line as inline SVG with its extremes labelled."""
    pairs = [
        (s, v) for s, v in zip(steps, values, strict=True) if v == v and abs(v) != float("inf")
    ]
    if len(pairs) < 2:
        return "<p>Too few steps for a curve.</p>"
    low, high = min(v for _, v in pairs), max(v for _, v in pairs)
    first, last = pairs[0][0], pairs[-1][0]
    points = " ".join(
        f"{_MARGIN + (s - first) / (last - first) * (_WIDTH - _MARGIN):.1f},"
        f"{(high - v) / ((high - low) or 1) * (_HEIGHT - 30) + 10:.1f}"
        for s, v in pairs
    )
    floor = _HEIGHT - 20
    return (
        f'<svg viewBox="0 0 {_WIDTH + 8} {_HEIGHT}" role="img">'
        f'<path d="M{_MARGIN} 10V{floor}H{_WIDTH}" fill="none" stroke="var(--line)"/>'
        f'<polyline points="{points}" fill="none" stroke="var(--ink)" stroke-width="2"/>'
        f'<text x="0" y="16">{high:.3g}</text><text x="0" y="{floor}">{low:.3g}</text>'
        f'<text x="{_MARGIN}" y="{_HEIGHT - 4}">step {first:.0f}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">step {last:.0f}</text></svg>'
    )


def _table(pairs: Any) -> str:
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


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _text(value: Any) -> str:
    return html.escape(str(value))
