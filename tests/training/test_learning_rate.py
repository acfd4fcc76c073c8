"""The learning rate of each step: a warm-up that trains from its first step, then the schedule."""

import pytest

from trainer.training.learning_rate import share_of_peak


def shares(steps: int, warmup_ratio: float, scheduler: str = "cosine") -> list[float]:
    return [
        share_of_peak(n, steps=steps, warmup_ratio=warmup_ratio, scheduler=scheduler)
        for n in range(steps)
    ]


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_no_step_is_at_rate_0(steps: int, warmup_ratio: float, scheduler: str) -> None:
    found = shares(steps, warmup_ratio, scheduler)
    assert all(0 < share <= 1 for share in found)


def test_a_run_of_one_step_is_at_the_peak() -> None:
    assert shares(1, 0.03) == [1.0]


def test_it_rises_in_even_steps_to_the_peak_and_falls_from_there() -> None:
    found = shares(10, 0.3)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[3:] == sorted(found[3:], reverse=True)
    assert found[-1] == pytest.approx(0.0495, abs=1e-3)  # (1 + cos(6/7 pi)) / 2


def test_linear_and_constant() -> None:
    assert shares(4, 0, "linear") == [1.0, 0.75, 0.5, 0.25]
    assert shares(4, 0.5, "constant") == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, 1.0]
