"""Products of one input, joined: each layer's own, with its adapter and without."""

from pathlib import Path

import pytest
import torch
from support.small_models import tuned_model

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.adapter_parameters import copies_of, tensors_of
from trainer.engine.lora_linear import JOINED_ROWS, LinearInput, LinearPass
from trainer.engine.weights import DecoderWeights
from trainer.kernels import PLAIN
from trainer.kernels.attention import Documents


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # without and with biases
@pytest.mark.parametrize("targets", ["q_proj,v_proj", "all-linear", "down_proj"])
@pytest.mark.parametrize("rows", [1, 9, JOINED_ROWS + 1])
def test_joined_products_are_those_of_each_layer(
    family: str, targets: str, rows: int, tmp_path: Path
) -> None:
    weights = DecoderWeights.of(tuned_model(family, tmp_path, targets))
    adapter = copies_of(tensors_of(weights.linears()), torch.float32)
    apart, joined = (
        LinearPass(weights.linears(), PLAIN, torch.float32, torch.device("cpu")) for _ in "ab"
    )
    x = torch.randn(rows, 128)
    where = Documents(torch.tensor([0, rows], dtype=torch.int32), rows)
    batch = Batch(where, {}, adapter, drops=False, random=None)
    together = weights.layers[1].qkv
    joined.join(together, adapter)
    for of in (weights, weights.without_adapter()):
        layer = of.layers[1]
        together = layer.qkv
        given = LinearInput(x, LayerActivations(x), batch)
        found, expected = (p.forward_together(together, given) for p in (joined, apart))
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
        alone = joined.forward(layer.qkv[1], given), apart.forward(layer.qkv[1], given)
        assert torch.allclose(*alone, rtol=1e-5, atol=1e-5)
