"""Answers of base and tuned model side by side, for people to read."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.answer_metrics import same_answer
from trainer.inference.reply import CUT


@dataclass(frozen=True)
class Sample:
    """A held-out question with its reference and what both models answered; which of the answers
    did not end by themselves."""

    question: str
    reference: str
    base: str
    tuned: str
    base_cut: bool = False
    tuned_cut: bool = False

    @property
    def base_shown(self) -> str:
        return self.base + CUT * self.base_cut

    @property
    def tuned_shown(self) -> str:
        return self.tuned + CUT * self.tuned_cut

    @property
    def base_is_right(self) -> bool:
        return same_answer(self.base, self.reference)

    @property
    def tuned_is_right(self) -> bool:
        return same_answer(self.tuned, self.reference)


def chosen(samples: Sequence[Sample], most: int) -> list[Sample]:
    """The first `most`. Where all of them are right and others are not, some of those take the last
    places."""
    wrong = [sample for sample in samples if not sample.tuned_is_right]
    if wrong and all(sample.tuned_is_right for sample in samples[:most]):
        wrong = wrong[: max(1, most // 4)]
        return [*samples[: most - len(wrong)], *wrong]
    return list(samples[:most])
