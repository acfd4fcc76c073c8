"""One linear layer with its adapter against the same under autograd."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_models import tuned_model

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.lora_linear import LinearInput, LinearPass
from trainer.engine.weights import DecoderWeights, Linear, Lora
from trainer.kernels import PLAIN

TOKENS = 5


def batch_of(linear: Linear, random: torch.Tensor | None = None) -> Batch:
    nothing: Any = None
    assert linear.lora is not None
    adapter = {linear.a_key: linear.lora.a.detach(), linear.b_key: linear.lora.b.detach()}
    return Batch(nothing, {}, adapter, drops=True, random=random)


def truth(linear: Linear, lora: Lora, x: torch.Tensor, mask: Any) -> torch.Tensor:
    rows, columns = linear.weight.shape
    weight = PLAIN.dequantise(linear.weight, torch.empty(rows, columns))
    added: torch.Tensor = lora.scale * ((x * mask) @ lora.a.t()) @ lora.b.t()
    return torch.nn.functional.linear(x, weight, linear.bias) + added


@pytest.fixture
def linear(request: pytest.FixtureRequest, tmp_path: Path) -> Linear:
    """Qwen2's, for it has a bias."""
    dropout = getattr(request, "param", 0.0)
    return DecoderWeights.of(tuned_model("qwen2", tmp_path, "q_proj", dropout)).layers[1].qkv[0]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("linear", [0.0, 0.5], indirect=True)
@pytest.mark.parametrize("unpacked", [False, True])
def test_output_and_gradients_are_those_of_autograd(linear: Linear, unpacked: bool) -> None:
    assert linear.lora is not None
    both = LinearPass([linear], PLAIN, torch.float32, torch.device("cpu"))
    if unpacked:
        both.unpack(linear)
    rows, columns = linear.weight.shape
    x, grad = noise(TOKENS, columns).requires_grad_(), noise(TOKENS, rows)
    saved, batch = LayerActivations(None), batch_of(linear)
    given = LinearInput(x.detach(), saved, batch)
    found = both.forward(linear, given)
    mask = saved.masks.get(linear.number, 1)
    expected = truth(linear, linear.lora, x, mask)
    expected.backward(grad)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(both.backward(linear, grad, given), x.grad, atol=1e-5)
    assert torch.allclose(batch.gradients[linear.a_key], linear.lora.a.grad, atol=1e-4)
    assert torch.allclose(batch.gradients[linear.b_key], linear.lora.b.grad, atol=1e-4)


@pytest.mark.parametrize("linear", [0.5], indirect=True)
def test_a_seed_gives_slices_of_rows_the_mask_of_all(linear: Linear) -> None:
    both = LinearPass([linear], PLAIN, torch.float32, torch.device("cpu"))
    x, random = noise(TOKENS, linear.weight.shape[1]), torch.tensor([7])
    batch, saved = batch_of(linear, random), LayerActivations(None)
    whole = both.forward(linear, LinearInput(x, saved, batch))
    saved.first_row = 2
    below = both.forward(linear, LinearInput(x[2:], saved, batch))
    assert torch.allclose(below, whole[2:], atol=1e-6)
    assert not saved.masks


def test_a_gradient_is_added_to_one_that_is_there(linear: Linear) -> None:
    both = LinearPass([linear], PLAIN, torch.float32, torch.device("cpu"))
    rows, columns = linear.weight.shape
    x, grad = noise(TOKENS, columns), noise(TOKENS, rows)

    def gradient(into: torch.Tensor | None) -> torch.Tensor:
        given = LinearInput(x, LayerActivations(None), batch_of(linear))
        return both.backward(linear, grad, given, into)

    assert torch.allclose(gradient(torch.ones_like(x)), gradient(None) + 1, atol=1e-5)
