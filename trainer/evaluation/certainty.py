"""How sure a share of right answers is, and of which questions."""

from trainer.dataset.eval_questions import MOST_QUESTIONS
from trainer.dataset.holdout import HeldOutBy
from trainer.evaluation.answer_metrics import interval


def are_all(by: str, asked: int, left_out: int) -> bool:
    """Whether the questions that were asked are all that are trained: of them nothing is unsure."""
    return by == HeldOutBy.NOTHING and not left_out and asked < MOST_QUESTIONS


def sure_of(share: float, asked: int, by: str, left_out: int) -> str:
    """How sure a share of right answers is, and of which questions, in words: those that were asked
    stand for all that are trained, or for all of their kind."""
    if are_all(by, asked, left_out):
        return "all that are trained were asked"
    low, high = interval(share, asked)
    whose = "all trained ones" if by == HeldOutBy.NOTHING else "all such questions"
    return f"95 % sure: {low:.0%} to {high:.0%} of {whose}"
