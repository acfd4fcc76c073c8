"""Which of two adapters is the better one: answers first, the loss where they are alike."""

import pytest

from trainer.dataset.eval_questions import Question
from trainer.evaluation.choice import why_better
from trainer.evaluation.compare import Evaluation, Scores

SHORT = (Question("How much is it?", "149 euros"),)
LONG = (Question("Why?", "because " * 40),)


def judged(
    loss: float, held_out: float = 0.0, trained: float = 0.0, asked: tuple[Question, ...] = SHORT
) -> Evaluation:
    def scores(share: float) -> Scores:
        return Scores(loss=loss, normalised=share, f1=share)

    return Evaluation(Scores(), scores(held_out), asked, scores(trained), 32)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        # By heart: the loss on other words has risen, and the trained ones are known now.
        (judged(1.0, 0.17, 1.0), judged(0.6, 0.16, 0.3), "100% of the answers of the trained"),
        (judged(0.6, 0.16, 0.3), judged(1.0, 0.17, 1.0), None),
        # Known worse in other words, however well by heart.
        (judged(0.6, 0.45, 0.5), judged(1.0, 0.40, 0.9), "45% of the answers of the asked"),
        (judged(1.0, 0.40, 0.9), judged(0.6, 0.45, 0.5), None),
        (judged(0.6, 0.99, 1.0), judged(0.7, 1.0, 1.0), "a held-out loss of 0.6000 against 0.7"),
        (judged(0.7, 1.0, 1.0), judged(0.6, 0.99, 1.0), None),
        (judged(0.7, 1.0, 1.0), judged(0.7, 1.0, 1.0), None),
        (judged(0.6, 0.45, 0.5, LONG), judged(1.0, 0.40, 0.9, LONG), "45% of their words (token"),
        (judged(0.6, asked=()), judged(1.0, 1.0, 1.0, ()), "a held-out loss of 0.6000"),
    ],
)
def test_answers_decide_and_the_loss_where_they_are_alike(
    one: Evaluation, other: Evaluation, why: str | None
) -> None:
    found = why_better(one, other)
    assert found == why if why is None or found is None else found.startswith(why)


def test_what_was_not_measured_decides_nothing() -> None:
    nothing = Evaluation(Scores(), Scores(), SHORT)
    assert why_better(nothing, nothing) is None
