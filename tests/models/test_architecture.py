"""Which layers of a model are quantised and which of those carry an adapter."""

import re
from typing import Any

import pytest
import torch
from support.architectures import CASES, config_of

from trainer.models.architecture import (
    adaptable_layers,
    chosen_layers,
    linear_layers,
    model_class,
    peft_targets,
)


def skeleton(name: str) -> Any:
    config = config_of(CASES[name])
    with torch.device("meta"):
        return model_class(config).from_config(config)


def ends(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


def test_an_encoder_with_a_decoder_continues_no_text() -> None:
    assert model_class(config_of(CASES["t5"])) is None


@pytest.mark.parametrize("name", ["gemma3", "mistral3", "qwen2_vl", "gemma4"])
def test_an_adapter_is_on_the_language_model_and_not_on_the_image_tower(name: str) -> None:
    model = skeleton(name)
    layers = adaptable_layers(model)
    assert layers
    assert all(".language_model." in layer for layer in layers)
    assert len(linear_layers(model)) > len(layers)  # the tower is quantised all the same


def test_a_subclass_of_a_linear_layer_is_not_quantised() -> None:
    assert not linear_layers(skeleton("falcon"))


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("hunyuan_v1_moe", "wg"),
        ("qwen2_moe", "shared_expert_gate"),
        ("falcon_h1", "out_proj"),
        ("deepseek_v3", "gate_proj"),  # peft takes the shared experts' for the experts'
    ],
)
def test_routers_and_what_peft_cannot_name_are_left_out(name: str, left_out: str) -> None:
    model = skeleton(name)
    assert left_out in ends(list(linear_layers(model)))
    assert left_out not in ends(adaptable_layers(model))
    assert adaptable_layers(model)


def test_peft_is_told_ends_of_names_where_they_are_nothing_else_s() -> None:
    model = skeleton("llama")
    assert peft_targets(model, chosen_layers(model, ["q_proj", "v_proj"])) == ["q_proj", "v_proj"]


def test_and_whole_names_where_the_image_tower_has_the_same_ends() -> None:
    model = skeleton("gemma3")
    chosen = chosen_layers(model, ["q_proj"])
    pattern = peft_targets(model, chosen)
    assert isinstance(pattern, str)
    assert {n for n, _ in model.named_modules() if re.fullmatch(pattern, n)} == set(chosen)
