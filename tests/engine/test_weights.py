"""A decoder's tensors are found in a peft model, each linear layer with its number and adapter."""

from pathlib import Path

import pytest
import torch
from support.small_models import tuned_model

from trainer.engine.weights import DecoderWeights, Linear


def test_linear_layers_are_numbered_through_the_decoder(tmp_path: Path) -> None:
    weights = DecoderWeights.of(tuned_model("llama", tmp_path, "q_proj,down_proj"))
    assert [linear.number for linear in weights.linears()] == list(range(3 * 7))
    assert [linear.number for linear in weights.linears() if linear.lora] == [0, 6, 7, 13, 14, 20]


def test_an_adapter_is_taken_with_its_scale_and_dropout(tmp_path: Path) -> None:
    model = tuned_model("llama", tmp_path, "v_proj", dropout=0.25)
    linear = DecoderWeights.of(model).layers[1].qkv[2]
    module = model.get_base_model().model.layers[1].self_attn.v_proj
    assert linear.lora is not None
    assert linear.lora.a is module.lora_A["default"].weight
    assert linear.lora.b is module.lora_B["default"].weight
    assert (linear.lora.scale, linear.lora.dropout) == (2.0, 0.25)


def test_norms_of_heads_are_those_of_qwen3(tmp_path: Path) -> None:
    for family, has_norms in (("qwen3", True), ("qwen2", False)):
        layer = DecoderWeights.of(tuned_model(family, tmp_path / family, "q_proj")).layers[0]
        assert (layer.q_norm is not None) == (layer.k_norm is not None) == has_norms
        assert (layer.qkv[0].bias is None) == has_norms


def test_a_layer_that_is_not_in_4_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is no 4-bit layer"):
        Linear.of(torch.nn.Linear(2, 2), 0)
