"""Tokens are drawn as often as their probabilities say, from as many as was asked for."""

import pytest
import torch

from trainer.engine.sampling import drawn

LOGITS = torch.tensor([0.0, 2.0, -1.0, 1.0])
DRAWS = 20_000


def shares(temperature: float, top_p: float = 1.0) -> list[float]:
    torch.manual_seed(0)
    rows = LOGITS.repeat(DRAWS, 1)
    given = torch.full((DRAWS,), temperature), torch.full((DRAWS,), top_p)
    return (torch.bincount(drawn(rows, *given), minlength=4) / DRAWS).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(0).tolist()
    assert shares(temperature) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, 1), (0.5, 1), (0.7, 2), (0.9, 3), (1.0, 4)])
def test_only_the_likeliest_that_hold_top_p_are_drawn(top_p: float, kept: int) -> None:
    probabilities = LOGITS.softmax(0)  # 0.09, 0.64, 0.03, 0.24
    assert probabilities.sort(descending=True).values.cumsum(0).tolist() == pytest.approx(
        [0.644, 0.881, 0.968, 1.0], abs=0.001
    )
    assert sum(share > 0 for share in shares(1.0, top_p)) == kept


def test_a_temperature_near_nothing_takes_the_likeliest() -> None:
    assert shares(1e-9) == [0.0, 1.0, 0.0, 0.0]
