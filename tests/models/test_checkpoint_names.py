"""Weights are found in files that name them otherwise than the model that is loaded."""

from pathlib import Path

import pytest
from support.architectures import write_checkpoint

from trainer.models.checkpoint_names import CheckpointNames, NameMapping, Place
from trainer.models.locate import BUILTIN, local_base
from trainer.models.safetensors_files import read_header


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("llama", "model.layers.0.self_attn.q_proj.weight"),
        ("gemma3", "model.language_model.layers.0.self_attn.q_proj.weight"),
        ("qwen3_5", "model.layers.1.self_attn.q_proj.weight"),
        ("qwen3_5", "model.language_model.layers.1.self_attn.q_proj.weight"),
    ],
)
def test_each_name_of_a_weight_leads_to_the_one_in_the_file(
    name: str, loaded: str, tmp_path: Path
) -> None:
    base = local_base(write_checkpoint(name, tmp_path, BUILTIN / "tiny"), name)
    stored = {tensor.name for tensor in read_header(tmp_path / "model.safetensors")[1]}
    found = CheckpointNames(base).in_files(stored)[loaded]
    assert found in stored
    assert found.endswith(loaded.partition("layers.")[2])


def test_experts_that_are_joined_have_no_name_of_their_own(tmp_path: Path) -> None:
    base = local_base(write_checkpoint("qwen3_moe", tmp_path, BUILTIN / "tiny"), "moe")
    stored = {tensor.name for tensor in read_header(tmp_path / "model.safetensors")[1]}
    assert any(".experts.0." in name for name in stored)
    fused = "model.layers.0.mlp.experts.gate_up_proj"
    assert fused not in CheckpointNames(base).in_files(stored)
    place = NameMapping(base.skeleton).place
    assert place("model.layers.0.mlp.experts.1.gate_proj.weight") == Place(fused, 2)
    assert place("model.layers.0.mlp.experts.1.up_proj.weight") == Place(fused, 3)
    assert place("model.layers.9.mlp.experts.1.up_proj.weight") is None
