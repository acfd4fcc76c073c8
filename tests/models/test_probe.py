"""What a base does is tried, not believed: documents that mix, values that fp16 does not hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import write_checkpoint
from support.bases import load_small, settings_for

from trainer.errors import SettingsError
from trainer.models.locate import BUILTIN
from trainer.models.probe import check_range, mixes_documents


def loaded(name: str, folder: Path) -> Any:
    base = write_checkpoint(name, folder / "base", BUILTIN / "tiny")
    return load_small(settings_for(base, folder / "scratch"))


@pytest.mark.parametrize(
    ("name", "mixes"),
    [
        ("llama", False),
        ("gemma3_text", False),
        ("qwen3_moe", False),
        ("opt", True),  # positions without rotation
        ("gpt_oss", True),
        ("lfm2", True),  # a convolution over the end
        ("qwen3_5_text", True),  # a state that goes on
    ],
)
def test_whether_a_document_sees_the_one_before_it(name: str, mixes: bool, tmp_path: Path) -> None:
    assert mixes_documents(loaded(name, tmp_path)) is mixes


def test_the_random_state_and_the_mode_stay_as_they_are(tmp_path: Path) -> None:
    model = loaded("llama", tmp_path).train()
    before = torch.random.get_rng_state()
    mixes_documents(model)
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.training


def test_values_that_fp16_does_not_hold_are_refused_with_what_would_work(tmp_path: Path) -> None:
    model, words = loaded("llama", tmp_path), np.arange(100, 140)
    usual = check_range(model, words, "mine")
    assert 0 < usual < 1000
    with torch.no_grad():
        model.model.embed_tokens.weight *= 1e6
    with pytest.raises(SettingsError, match=r"mine: its values reach .* QLORA_PRECISION=fp32"):
        check_range(model, words, "mine")
    with torch.no_grad():
        model.model.embed_tokens.weight *= float("nan")
    with pytest.raises(SettingsError, match="its values reach inf"):
        check_range(model, words, "mine")
