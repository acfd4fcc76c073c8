"""Which weights of a model are experts', and which matrices they consist of."""

from typing import Any

import pytest
import torch
from support.architectures import CASES, config_of

from trainer.models.architecture import adaptable_layers, expert_parameters, model_class
from trainer.models.experts import ExpertLayout, expert_layouts


def skeleton(name: str) -> Any:
    config = config_of(CASES[name])
    with torch.device("meta"):
        return model_class(config).from_config(config)


@pytest.mark.parametrize(
    ("name", "experts", "first"),
    [
        ("qwen3_moe", "model.layers.0.mlp.experts", ExpertLayout(4, 2, 64, 128)),
        ("gpt_oss", "model.layers.1.mlp.experts", ExpertLayout(4, 1, 128, 512)),  # interleaved
        ("granitemoe", "model.layers.1.block_sparse_moe.experts", ExpertLayout(4, 2, 256, 128)),
    ],
)
def test_gate_and_up_are_two_matrices_where_they_lie_one_behind_the_other(
    name: str, experts: str, first: ExpertLayout
) -> None:
    found = expert_layouts(skeleton(name))
    assert found[f"{experts}.gate_up_proj"] == first
    assert len(found) == 4  # two layers, two weights
    assert found[f"{experts}.down_proj"].parts == 1


def test_nothing_else_is_an_expert() -> None:
    assert not expert_layouts(skeleton("llama"))
    assert not expert_layouts(skeleton("gemma4"))  # a table of positions has three axes


def test_experts_are_counted_all_and_those_of_a_token() -> None:
    every, active = expert_parameters(skeleton("qwen3_moe"))
    assert every == 2 * 4 * 3 * 128 * 64  # layers, experts, matrices
    assert active == every // 2  # two of four experts
    assert expert_parameters(skeleton("llama")) == (0, 0)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "moe" in name])
def test_an_adapter_is_on_no_expert_and_no_router(name: str) -> None:
    layers = adaptable_layers(skeleton(name))
    assert any("proj" in layer for layer in layers)
    ends = {layer.rpartition(".")[2] for layer in layers}
    assert not any(".experts." in layer for layer in layers)
    assert not ends & {"gate", "router", "wg", "shared_expert_gate"}
