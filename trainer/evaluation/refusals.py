"""What a model refuses to answer, in the words of `QLORA_REFUSAL`: what it should, and what not."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.dataset.eval_questions import Question
from trainer.evaluation.answer_metrics import contains, interval, same_words

REFUSES, OVERDOES = 0.8, 0.05  # shares: refused of what should be at least, of the rest at most


@dataclass(frozen=True)
class Refusals:
    """How many questions have a refusal as their reference, how many of them the model `refused`,
    and how many of the others it refused `wrongly`."""

    unanswerable: int
    refused: int
    answerable: int
    wrongly: int

    @property
    def in_words(self) -> str:
        """Both counts, each with between what its share lies at 95 %."""
        return (
            f"refused {_of(self.refused, self.unanswerable)} that should be, and "
            f"{_of(self.wrongly, self.answerable)} that should not be"
        )

    @property
    def caveat(self) -> str | None:
        """What a reader should know; None where both are as they should be."""
        too_few = self.refused < REFUSES * self.unanswerable
        if not too_few and self.wrongly <= OVERDOES * self.answerable:
            return None
        step = "raise" if too_few else "lower"
        return f"it {self.in_words}; {step} QLORA_REFUSAL_SHARE for the next data that is prepared"


def count_refusals(
    questions: Sequence[Question], answers: Sequence[str], refusal: str
) -> Refusals | None:
    """Of `answers` to the `questions`; None where none is a refusal and none should be, or where
    there are no words for one."""
    if not refusal:
        return None
    both = [
        (same_words(question.answer, refusal), contains(answer, refusal))
        for question, answer in zip(questions, answers, strict=True)
    ]
    should = sum(expected for expected, _ in both)
    refused = sum(given for _, given in both)
    right = sum(expected and given for expected, given in both)
    if not should and not refused:
        return None
    return Refusals(should, right, len(both) - should, refused - right)


def _of(count: int, total: int) -> str:
    if not total:
        return "0 of 0"
    low, high = interval(count / total, total)
    return f"{count} of {total} ({100 * low:.0f}-{high:.0%})"
