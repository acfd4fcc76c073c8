"""Rows of a table in another dtype: fused as in plain torch."""

from typing import Any

import pytest
import torch

from trainer.kernels import embedding

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize(("words", "columns"), [(1, 64), (7, 341)])
def test_embedding(words: int, columns: int, noise: Any) -> None:
    table = noise(words, columns)
    ids = torch.arange(2 * words, device=table.device) % words
    truth = embedding.reference(ids, table, torch.float16)
    assert torch.equal(embedding.fused(ids, table, torch.float16), truth)
