"""Which answers a person is shown, and how."""

from dataclasses import replace

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.samples import Sample
from trainer.inference.reply import Reply

ASKED = tuple(Question(f"What is {n}?", f"{n}") for n in range(20))


def evaluation(wrong: set[int]) -> Evaluation:
    given = tuple("no" if n in wrong else q.answer for n, q in enumerate(ASKED))
    return Evaluation(Scores(answers=("no",) * len(ASKED)), Scores(answers=given), ASKED)


def test_the_first_questions_are_shown() -> None:
    shown = evaluation(wrong={1}).samples(8)
    assert [sample.question for sample in shown] == [q.question for q in ASKED[:8]]
    assert shown[0] == Sample("What is 0?", "0", "no", "0")
    assert [sample.tuned_is_right for sample in shown] == [n != 1 for n in range(8)]


def test_an_answer_that_was_cut_ends_with_a_sign() -> None:
    found = evaluation(wrong=set())
    replies = [Reply("no", stopped=number != 1) for number in range(20)]
    found = replace(found, base=replace(found.base, replies=tuple(replies)))
    assert [sample.base_shown for sample in found.samples(3)] == ["no", "no …", "no"]
    assert [sample.tuned_shown for sample in found.samples(3)] == ["0", "1", "2"]


def test_where_all_of_them_are_right_some_wrong_ones_take_the_last_places() -> None:
    shown = evaluation(wrong={12, 15, 19}).samples(8)
    assert [sample.reference for sample in shown] == ["0", "1", "2", "3", "4", "5", "12", "15"]


def test_all_right_all_are_shown() -> None:
    assert all(sample.tuned_is_right for sample in evaluation(wrong=set()).samples(8))
