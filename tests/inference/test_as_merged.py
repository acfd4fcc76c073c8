"""A model that computes as merged has the weights of the merged model's file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from support.small_adapters import random_adapter
from transformers import AutoModelForCausalLM

from trainer.export.merged import merge
from trainer.inference.as_merged import as_merged, merged_weight
from trainer.inference.precision import compute_precision
from trainer.models.adapters import Adapter, find_adapter
from trainer.models.load import load_base
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings

SETTINGS = Settings.read({}, {}, trains=False)
IDS = torch.arange(3, 203).reshape(2, 100)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """On attention alone: other layers are NF4 without an adapter."""
    folder = tmp_path_factory.mktemp("run")
    run = random_adapter(folder, r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"])
    return find_adapter(str(run), SETTINGS)


@pytest.fixture(scope="module")
def tuned(adapter: Adapter) -> Any:
    """As it was trained."""
    base = load_base(adapter.base, SETTINGS, Precision("fp32", "test"), find_device())
    return PeftModel.from_pretrained(base, adapter.folder).eval()


@pytest.fixture(scope="module")
def merged(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge(adapter, SETTINGS, tmp_path_factory.mktemp("merged") / "model")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad(), compute_precision(model):
        return model(IDS).logits.float()


def test_every_weight_is_that_of_the_file(tuned: Any, merged: Path) -> None:
    written, seen = load_file(merged / "model.safetensors"), 0
    for name, layer in tuned.get_base_model().named_modules():
        if not name.endswith("_proj"):
            continue
        seen += 1
        ours, theirs = merged_weight(layer, torch.bfloat16), written[f"{name}.weight"]
        # Products of a matrix and of its rows may differ in float32's last bits.
        assert torch.allclose(ours.float(), theirs.float(), rtol=2**-7, atol=1e-7), name
        assert (ours == theirs).float().mean() > 0.999, name
    assert seen == 4 * 7


def test_its_answers_are_the_file_s_and_afterwards_the_adapter_s_again(
    tuned: Any, merged: Path
) -> None:
    before = logits(tuned)
    with as_merged(tuned, torch.bfloat16):
        as_the_file = logits(tuned)
    from_file = logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32))
    assert torch.equal(logits(tuned), before)
    off = (as_the_file - from_file).abs().max()
    assert off < 0.05 * (as_the_file - before).abs().max()


def logits_of_base(tuned: Any) -> torch.Tensor:
    with tuned.disable_adapter():
        return logits(tuned)


def test_with_its_adapter_off_it_is_the_base(tuned: Any) -> None:
    base = logits_of_base(tuned)
    with as_merged(tuned, torch.bfloat16):
        assert (logits_of_base(tuned) - base).abs().max() < 1e-2 * base.abs().max()


def test_a_layer_keeps_what_was_put_in_front_of_it(tuned: Any) -> None:
    layer = next(m for m in tuned.modules() if isinstance(m, LoraLayer))
    own = layer.forward
    try:
        layer.forward = lambda x, *rest: own(x, *rest) * 0
        with as_merged(tuned, torch.bfloat16):
            pass
        assert not layer.forward(torch.ones(1, layer.in_features)).any()
    finally:
        del layer.forward
