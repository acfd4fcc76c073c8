"""A diverged run is told from one that skips steps while it looks for its loss scale."""

import math

import pytest

from trainer.errors import RejectedError
from trainer.training.divergence import MOST_UNUSABLE_STEPS, DivergenceDetector, is_usable


@pytest.mark.parametrize(
    ("loss", "gradient_norm", "usable"),
    [
        (2.0, 0.5, True),
        (math.nan, 0.5, False),
        (math.inf, 0.5, False),
        (2.0, math.nan, False),
        (2.0, math.inf, False),
        (8.0, 0.0, False),  # a dead run: its rate was far too high
    ],
)
def test_a_step_is_usable_with_a_finite_loss_and_a_gradient(
    loss: float, gradient_norm: float, usable: bool
) -> None:
    assert is_usable(loss, gradient_norm) is usable


def test_only_unusable_steps_in_a_row_are_a_divergence() -> None:
    detector = DivergenceDetector()
    for _ in range(3):
        for _ in range(MOST_UNUSABLE_STEPS - 1):
            detector.step(1.0, math.nan)
        detector.step(1.0, 0.5)
    for _ in range(MOST_UNUSABLE_STEPS - 1):
        detector.step(1.0, math.nan)
    with pytest.raises(RejectedError, match=r"diverged: loss 1, gradient norm nan and 8 unusable"):
        detector.step(1.0, math.nan)
