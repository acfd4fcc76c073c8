"""Which of two adapters of one run is the better one, by their evaluations, and why."""

from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.verdict import answered, are_long, unit_of

ALIKE = 0.02  # shares of right answers that differ by less are alike


def why_better(one: Evaluation, other: Evaluation) -> str | None:
    """Why `one` is better than `other`, both on the same questions; None where it is not.

    Held-out answers count most, then trained ones, and the held-out loss where both are alike:
    answers are what a bot is for, and a loss can rise while they improve.
    """
    return _why_answers(one, other) if one.questions else _why_loss(one, other)


def _why_answers(one: Evaluation, other: Evaluation) -> str | None:
    by_words = are_long(one.questions)
    for what, mine, theirs in (
        ("asked", one.tuned, other.tuned),
        ("trained", one.trained or Scores(), other.trained or Scores()),
    ):
        better, worse = answered(mine, by_words), answered(theirs, by_words)
        if better is None or worse is None or abs(better - worse) < ALIKE:
            continue
        if better < worse:
            return None
        return f"{better:.0%} of {unit_of(by_words)} of the {what} questions against {worse:.0%}"
    return _why_loss(one, other)


def _why_loss(one: Evaluation, other: Evaluation) -> str | None:
    mine, theirs = one.tuned.loss, other.tuned.loss
    if mine is None or theirs is None or mine >= theirs:
        return None
    return f"a {one.loss_name} of {mine:.4f} against {theirs:.4f}"
