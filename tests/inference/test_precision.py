"""What a tuned model computes in outside of training."""

import pytest
import torch

from trainer.inference.precision import compute_precision


class Tuned(torch.nn.Module):
    """Embeddings in `dtype`, as of a base, and an adapter's layer in float32."""

    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.embeddings = torch.nn.Embedding(4, 8, dtype=dtype)
        self.adapter = torch.nn.Linear(8, 8)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embeddings


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_float32_adapter_computes_in_the_precision_of_its_base(dtype: torch.dtype) -> None:
    model = Tuned(dtype)
    with compute_precision(model):
        given = model.adapter(model.embeddings(torch.tensor([1])))
    assert given.dtype == dtype
    assert not torch.is_autocast_enabled("cpu")
