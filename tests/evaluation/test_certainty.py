"""How sure a share of right answers is depends on which questions it is said of."""

from trainer.dataset.eval_questions import MOST_QUESTIONS
from trainer.dataset.holdout import HeldOutBy
from trainer.evaluation.certainty import are_all, sure_of


def test_of_trained_questions_all_may_have_been_asked() -> None:
    assert are_all(HeldOutBy.NOTHING, 60, 0)
    assert not are_all(HeldOutBy.NOTHING, 60, 1)  # time was over
    assert not are_all(HeldOutBy.NOTHING, MOST_QUESTIONS, 0)  # there may be more of them
    assert not are_all(HeldOutBy.FACTS, 60, 0)  # users ask others


def test_it_is_said_of_which_questions_a_share_is_unsure() -> None:
    assert sure_of(0.5, 60, HeldOutBy.NOTHING, 0) == "all that are trained were asked"
    assert sure_of(0.5, 60, HeldOutBy.NOTHING, 8) == "95 % sure: 38% to 62% of all trained ones"
    kind = "95 % sure: 38% to 62% of all such questions"
    assert sure_of(0.5, 60, HeldOutBy.WORDINGS, 0) == sure_of(0.5, 60, "", 0) == kind
