"""A run in three sentences: what the bot knows now, how sure that is, and what to do next.

The report and the model card begin with them.
"""

import re
from dataclasses import dataclass

from trainer.evaluation.verdict import (
    BY_HEART,
    KNOWS,
    NOT_KEPT_BACK,
    NOT_LEARNED,
    is_verdict,
)
from trainer.reporting.run_record import RunRecord

_VERDICT = re.compile(r"[^:]*: (?P<figures>.*?) \((?P<asked>(?:all )?\d[^)]*)\)(?:; (?P<step>.*))?")
IN_WORDS = {
    KNOWS: "It knows its data, and answers questions that it was not trained on",
    BY_HEART: "It answers what it was trained on; the same in other words it often misses",
    NOT_LEARNED: "It has not learned its data yet",
}
NOTHING_TO_MEND = "ask it in your users' words, by the command `ask --adapter` and this run"
UNASKED = "It answers what it was trained on; nobody has asked it in other words yet"


@dataclass(frozen=True)
class Summary:
    """Sentences without their full stop; `sure` is empty where nothing was measured."""

    knows: str
    sure: str
    step: str


def summary(record: RunRecord) -> Summary:
    """Of what the run's verdict says; of its losses where no question was asked."""
    verdict = next(filter(is_verdict, record.warnings), "")
    found = _VERDICT.fullmatch(verdict)
    if found is None:
        return _by_loss(record)
    unkept = next((w for w in record.warnings if w.startswith(NOT_KEPT_BACK)), "")
    kind = next(kind for kind in IN_WORDS if verdict.startswith(kind))
    knows = UNASKED if unkept and kind == BY_HEART else IN_WORDS[kind]
    sure = f"{found['figures']} were right ({found['asked']})"
    step = found["step"] or unkept.rpartition("; ")[2] or NOTHING_TO_MEND
    return Summary(knows, sure, step[:1].upper() + step[1:])


def others(record: RunRecord) -> list[str]:
    """The warnings that the summary does not tell already."""
    return [w for w in record.warnings if not (is_verdict(w) and _VERDICT.fullmatch(w))]


def _by_loss(record: RunRecord) -> Summary:
    before, after = record.evaluation.base.loss, record.evaluation.tuned.loss
    knows = "It was asked no question, so what it answers is not known"
    step = "Set QLORA_EVAL_URI to questions with answers, and start again"
    if before is None or after is None:
        return Summary(knows, "", step)
    better = "finds text of this kind more likely" if after < before else "finds it no likelier"
    return Summary(
        f"{knows}; it {better} than the base",
        f"The loss on it went from {before:.2f} to {after:.2f}",
        step,
    )
