"""When an earlier step may be better than the last, and when a run has nothing to gain."""

from pathlib import Path

import pytest
import torch
from support.training_setups import tiny_setup

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.monitoring.step_log import StepRow
from trainer.training.checkpoint_state import trainable
from trainer.training.keep import KeptAdapter, candidate, is_clearly_better, is_over, keep_best


def history(held_out: list[float], training: list[float]) -> list[StepRow]:
    """A measurement every second step."""
    return [
        row
        for n, (judged, loss) in enumerate(zip(held_out, training, strict=True))
        for row in (
            {"step": 2 * n + 1, "loss": loss},
            {"step": 2 * n + 2, "loss": loss, "held_out_loss": judged},
        )
    ]


RISING = [3.0, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5]
FALLING = [3.0, 2.0, 1.5, 1.0, 0.5, 0.1, 0.05]


def test_prose_is_over_when_one_loss_has_risen_for_five_measurements_while_the_other_fell() -> None:
    assert is_over(history(RISING, FALLING), teaches_answers=False)
    assert not is_over(history(RISING[:-1], FALLING[:-1]), teaches_answers=False)


@pytest.mark.parametrize(
    ("held_out", "training"),
    [
        (RISING, [3.0, 2.0, *[2.0] * 5]),  # nothing is learned: the rate is too high as yet
        ([3.0, 2.0, *[2.01] * 5], FALLING),  # it stands still
        ([3.0, 2.0, 2.1, 2.2, 2.0, 2.4, 2.5], FALLING),  # it was as good as that once more
        ([3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4], FALLING),
        ([0.9, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006], FALLING),  # all of it is known
    ],
)
def test_a_run_goes_on_while_one_of_both_may_still_get_better(
    held_out: list[float], training: list[float]
) -> None:
    assert not is_over(history(held_out, training), teaches_answers=False)


def test_records_are_over_only_when_they_are_known_by_heart() -> None:
    assert not is_over(history(RISING, FALLING), teaches_answers=True)
    known = [3.0, 2.0, 0.003, 0.003, 0.002, 0.002, 0.001]
    assert is_over(history(RISING, known), teaches_answers=True)


def test_without_a_measurement_nothing_is_over() -> None:
    assert not is_over([{"step": 1, "loss": 1.0}], teaches_answers=False)


def test_losses_differ_clearly_by_a_share_and_by_nats() -> None:
    assert is_clearly_better(0.9, 1.0)
    assert not is_clearly_better(0.985, 1.0)
    assert not is_clearly_better(0.001, 0.009)


@pytest.mark.parametrize(
    ("held_out", "is_one"), [(RISING, True), (FALLING, False), ([2.0, 1.0, 1.005], False)]
)
def test_an_earlier_step_is_looked_at_where_its_loss_was_clearly_lower(
    held_out: list[float], is_one: bool
) -> None:
    rows = history(held_out, held_out)
    best = min((row for row in rows if "held_out_loss" in row), key=lambda r: r["held_out_loss"])
    kept = KeptAdapter(best["step"], best["held_out_loss"], {})
    assert candidate(kept, rows) is (kept if is_one else None)
    assert candidate(None, rows) is None


LAST = Evaluation(Scores(loss=1.0), Scores(loss=0.9), ())


@pytest.mark.parametrize(
    ("loss", "step", "reason"),
    [
        (0.8, 4, "a held-out loss of 0.8000 against 0.9000 after step 9"),
        (0.95, 9, "a held-out loss of 0.9000 against 0.9500 after step 4"),
    ],
)
def test_the_model_has_the_better_one_afterwards(
    loss: float, step: int, reason: str, tmp_path: Path
) -> None:
    model = tiny_setup(tmp_path).model
    earlier = KeptAdapter.of(model, 4, 0.7)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(1)
    last = KeptAdapter.of(model, 9, 0.9)
    judged = Evaluation(Scores(loss=1.0), Scores(loss=loss), ())

    def judge(base: Scores | None) -> Evaluation:
        return LAST if base is None else judged

    kept = keep_best(model, earlier, judge, last_step=9, keep="best")
    assert (kept.step, kept.reason) == (step, reason)
    assert kept.evaluation is (judged if step == 4 else LAST)
    wanted = (earlier if step == 4 else last).tensors
    assert all(wanted[name].equal(tensor) for name, tensor in trainable(model).items())


def test_without_an_earlier_one_the_last_is_kept_and_nothing_evaluated_again() -> None:
    asked = []

    def judge(base: Scores | None) -> Evaluation:
        asked.append(base)
        return LAST

    for keep, reason in (("last", "QLORA_KEEP=last"), ("best", "no earlier step had a clearly")):
        kept = keep_best(None, None, judge, last_step=9, keep=keep)
        assert kept.step == 9 and kept.evaluation is LAST
        assert kept.reason.startswith(f"the last one; {reason}")
    assert asked == [None, None]


def test_answers_that_are_alike_leave_the_last_one_and_say_so(tmp_path: Path) -> None:
    model = tiny_setup(tmp_path).model
    asked = (Question("q", "a"),)
    same = Evaluation(Scores(), Scores(loss=0.5, normalised=1.0), asked)
    earlier = KeptAdapter.of(model, 1, 0.4)
    kept = keep_best(model, earlier, lambda _: same, last_step=2, keep="best")
    assert (kept.step, kept.reason) == (2, "the answers are alike after step 1")
