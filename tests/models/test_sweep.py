"""Every architecture that people fine-tune is trained right, or refused before it is loaded.

`make test-models` takes all of them, on random checkpoints of two layers; otherwise a few stand for
the ways in which they differ.
"""

import os
from pathlib import Path

import pytest
from support.architectures import CASES
from support.jobs import run_here
from support.sweep import examine, settings_of

from trainer.errors import SettingsError

TRAINED = [name for name, case in CASES.items() if not case.refused]
FEW = ("llama-bnb4", "mistral3", "qwen3_5", "gemma3", "deepseek_v3", "granitemoehybrid", "phi3")
EXACT = 1e-5  # relative, of losses and of the gradient's norm, in float32
MERGED = 1e-4  # of the spread of the logits: weights are rounded once more


def names(found: list[str]) -> list[str]:
    return found if os.environ.get("QLORA_TEST_ALL_MODELS") else [n for n in found if n in FEW]


def assert_right(name: str, targets: str, folder: Path) -> None:
    for what, difference in examine(name, targets, folder).differences.items():
        assert difference < (MERGED if what == "merged" else EXACT), what


@pytest.mark.parametrize("name", names(TRAINED))
def test_all_linear_layers_train_right_and_are_what_is_published(name: str, tmp_path: Path) -> None:
    assert_right(name, "all-linear", tmp_path)


@pytest.mark.skipif("QLORA_TEST_ALL_MODELS" not in os.environ, reason="make test-models")
@pytest.mark.parametrize("name", [name for name in TRAINED if not CASES[name].no_qv])
def test_queries_and_values_alone_too(name: str, tmp_path: Path) -> None:
    assert_right(name, "q_proj,v_proj", tmp_path)


@pytest.mark.parametrize("name", names([name for name, case in CASES.items() if case.no_qv]))
def test_where_there_is_no_layer_of_that_name_those_that_are_there_are_named(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"q_proj.*: not in .*, which has .*\(or all-linear\)"):
        run_here(tmp_path, **settings_of(name, "q_proj,v_proj", tmp_path))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_what_cannot_be_right_is_refused_before_it_is_loaded(name: str, tmp_path: Path) -> None:
    changes = settings_of(name, "all-linear", tmp_path)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(SettingsError, match=CASES[name].refused) as caught:
        run_here(tmp_path, **changes)
    assert caught.value.exit_code == 2
