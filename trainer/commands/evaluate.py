"""`evaluate`: any adapter against its base, on any data."""

import json
from dataclasses import dataclass
from typing import Any

from trainer.dataset.pipeline import prepare_held_out
from trainer.evaluation.compare import Evaluation, Score, compare, finite
from trainer.inference.chat_model import load_chat_model
from trainer.runtime.log import one_line
from trainer.settings import Settings
from trainer.tokenization.chat_template import ensure_chat_template
from trainer.uris import publishable_uri

SHOWN = 10
_ROWS = (
    ("loss", "held-out loss", ".4f"),
    ("perplexity", "perplexity", ",.2f"),
    ("exact", "exact answers", ".0%"),
    ("f1", "token F1", ".0%"),
    ("stopped", "stopped by itself", ".0%"),
)


@dataclass(frozen=True)
class EvaluationResult:
    """What was compared with what, and how they did."""

    adapter: str
    data: str
    blocks: int
    evaluation: Evaluation

    def as_json(self) -> str:
        """One line, with every question and both answers."""
        record: dict[str, Any] = {
            "adapter": publishable_uri(self.adapter),
            "data": publishable_uri(self.data),
            "blocks": self.blocks,
            "questions": len(self.evaluation.questions),
            "base": self.evaluation.base.figures(),
            "tuned": self.evaluation.tuned.figures(),
            "samples": self.evaluation.samples(len(self.evaluation.questions)),
        }
        return json.dumps(record)


def judge(adapter: str, settings: Settings, base_model: str | None) -> EvaluationResult:
    """Compare as a run does at its end: the same blocks, questions and code."""
    bot = load_chat_model(adapter, settings, base_model)
    ensure_chat_template(bot.tokenizer)
    blocks, questions = prepare_held_out(settings, bot.tokenizer)
    evaluation = compare(bot.model, bot.tokenizer, blocks, questions)
    return EvaluationResult(
        adapter, settings.eval_uri or settings.data_uri, len(blocks), evaluation
    )


def as_text(verdict: EvaluationResult) -> str:
    """A table of scores, then answers side by side."""
    scores = verdict.evaluation.base, verdict.evaluation.tuned
    lines = [
        f"{len(verdict.evaluation.questions)} questions and {verdict.blocks} blocks of "
        f"{verdict.data}",
        "",
        f"{'':20}{'base':>12}{'tuned':>12}",
    ]
    for name, words, form in _ROWS:
        cells = [_cell(score, name, form) for score in scores]
        lines.append(f"{words:20}{cells[0]:>12}{cells[1]:>12}")
    for row in verdict.evaluation.samples(SHOWN):
        lines += ["", row["question"]]
        lines += [
            f"  {name:10} {one_line(row[name], 100, '…')}"
            for name in ("reference", "base", "tuned")
        ]
    return "\n".join(lines)


def _cell(score: Score, name: str, form: str) -> str:
    value = getattr(score, name)
    return format(value, form) if finite(value) else "-"
