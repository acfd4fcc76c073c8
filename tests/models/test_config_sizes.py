"""A base whose config.json has sizes of no model is refused before one is made of it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.small_adapters import TINY, edit
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from trainer.errors import SettingsError
from trainer.models.base_model import Base
from trainer.models.config_sizes import LARGEST, size_faults
from trainer.models.locate import local_base


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("size", [-1, 10**30, "x", 2.0, True, [1, 10**30], {}])
def test_what_is_no_size_is_named(name: str, size: object) -> None:
    for config in ({name: size}, {"text_config": {name: size}}):
        (fault,) = size_faults(config)
        assert fault.startswith(f"{name}=")


def test_what_models_have_is_none() -> None:
    assert not [*size_faults({"hidden_size": 8192, "intermediate_size": [4, 8], "head_dim": None})]
    assert not [*size_faults({"n_routed_experts": 0, "text_config": {"text_config": {}}})]


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**30},
        {"hidden_size": -64},
        {"num_attention_heads": 0},
        {"num_attention_heads": 7},
        {"vocab_size": "x"},
        {"architectures": True},
        {"architectures": [None]},
        {"rope_parameters": 5},
        {"hidden_act": "evil"},
        {"layer_types": ["evil"]},
    ],
)
def test_a_config_of_no_model_is_a_setting_to_change(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    edit(folder / "config.json", **change)
    with pytest.raises(SettingsError, match=r"config\.json describes no model"):
        local_base(folder, "mine").shape()


@pytest.mark.parametrize("broken", ["[]", "5", "null", "[" * 100_000])
def test_a_config_that_is_no_object_is_named(tmp_path: Path, broken: str) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    (folder / "config.json").write_text(broken)
    with pytest.raises(SettingsError, match=r"config\.json is not"):
        local_base(folder, "mine")


def test_attention_that_it_names_is_not_looked_for(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    edit(folder / "config.json", attn_implementation="evil/kernel")
    edit(folder / "config.json", _attn_implementation="evil/kernel")
    changed, plain = local_base(folder, "mine"), Base(TINY, "builtin:tiny", "")
    assert changed.linear_layers == plain.linear_layers
    assert changed.attention == plain.attention


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"n_layers": 10**7}, "n_layers=10000000 is no number up to 1,000"),
        ({"num_layers": 10**8}, "num_layers=100000000 is no number up to 1,000"),
        ({"depths": [3, 3, 10**9]}, "depths=1000000000 is no number up to 1,000"),
        (
            {"a": {"vision_config": {"num_hidden_layers": 10**7}}},
            "num_hidden_layers=10000000 is no number up to 1,000",
        ),
        (
            {"attention_types": [[["global"], 10**8]]},
            "attention_types=.* lists more than 16,777,216",
        ),
        ({"attention_types": [[["global"], 10**6]] * 99}, "attention_types=.* lists more than"),
        (
            {"num_attention_heads": 8, "num_key_value_heads": 3},
            "num_key_value_heads=3 do not divide num_attention_heads=8",
        ),
    ],
)
def test_a_size_by_another_name_is_one(config: dict[str, Any], fault: str) -> None:
    (found,) = size_faults(config)
    assert re.match(fault, found)


PUBLISHED = (
    *(
        "aria",
        "deepseek_v3",
        "gemma3",
        "gpt_neo",
        "internvl",
        "llama4",
        "llava_onevision",
        "mamba2",
    ),
    *("mistral3", "mixtral", "mpt", "phi4_multimodal", "qwen2_5_vl", "qwen3_next", "swin"),
)


def test_no_model_of_transformers_has_a_fault() -> None:
    """With the sizes that its class takes where none are given: those of a published model. Of all
    350 classes only lxmert's has one, which reads no text alone."""
    for kind in PUBLISHED:
        usual = CONFIG_MAPPING[kind]().to_dict()
        assert not [*size_faults(json.loads(json.dumps(usual, default=str)))], kind


def test_a_model_of_too_many_modules_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.models.config_sizes.MOST_MODULES", 20)
    with pytest.raises(SettingsError, match=r"no model \(it has more than 20 modules\)"):
        assert Base(TINY, "builtin:tiny", "").skeleton
    monkeypatch.undo()
    assert Base(TINY, "builtin:tiny", "").skeleton


def test_a_class_that_is_no_model_is_not_called(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    edit(folder / "config.json", architectures=["pipeline"])
    assert local_base(folder, "mine").named_skeleton is None
