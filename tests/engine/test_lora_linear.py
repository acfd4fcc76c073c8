"""One linear layer with its adapter against the same under autograd."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_models import tuned_model

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.adapter_parameters import tensors_of
from trainer.engine.lora_linear import LinearInput, LinearPass
from trainer.engine.weights import DecoderWeights, Linear, Lora
from trainer.kernels import PLAIN

TOKENS = 5


def batch_of(*linears: Linear, random: torch.Tensor | None = None) -> Batch:
    nothing: Any = None
    adapter = {key: tensor.detach() for key, tensor in tensors_of(linears).items()}
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
    batch, saved = batch_of(linear, random=random), LayerActivations(None)
    whole = both.forward(linear, LinearInput(x, saved, batch))
    saved.first_row = 2
    below = both.forward(linear, LinearInput(x[2:], saved, batch))
    assert torch.allclose(below, whole[2:], atol=1e-6)
    assert not saved.masks


@pytest.mark.parametrize("targets", ["q_proj,v_proj", "q_proj,k_proj,v_proj"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_layers_of_one_input_give_what_each_gives_alone(
    targets: str, dropout: float, tmp_path: Path
) -> None:
    linears = DecoderWeights.of(tuned_model("qwen2", tmp_path, targets, dropout)).layers[1].qkv
    passes = LinearPass(linears, PLAIN, torch.float32, torch.device("cpu"))
    widths = [linear.weight.shape[0] for linear in linears]
    x, grads = noise(TOKENS, linears[0].weight.shape[1]), [noise(TOKENS, w) for w in widths]
    together, apart = batch_of(*linears), batch_of(*linears)
    given = LinearInput(x, LayerActivations(None), together)
    alone = LinearInput(x, LayerActivations(None, masks=given.saved.masks), apart)
    found = passes.forward_of(linears, widths, given)
    for y, linear in zip(found, linears, strict=True):
        assert torch.allclose(y, passes.forward(linear, alone), atol=1e-5)
    total = passes.backward_of(linears, grads, given)
    each = [passes.backward(line, g, alone) for line, g in zip(linears, grads, strict=True)]
    assert total is not None and torch.allclose(total, sum(each, torch.zeros(1)), atol=1e-5)
    assert together.gradients.keys() == apart.gradients.keys() != set()
    for key, gradient in apart.gradients.items():
        assert torch.allclose(together.gradients[key], gradient, atol=1e-4)


def test_below_the_lowest_layer_adapters_alone_get_gradients(linear: Linear) -> None:
    passes = LinearPass([linear], PLAIN, torch.float32, torch.device("cpu"))
    rows, columns = linear.weight.shape
    batch = batch_of(linear)
    given = LinearInput(noise(TOKENS, columns), LayerActivations(None), batch)
    assert passes.backward_of([linear], [noise(TOKENS, rows)], given, lowest=True) is None
    assert batch.gradients.keys() == {linear.a_key, linear.b_key}
