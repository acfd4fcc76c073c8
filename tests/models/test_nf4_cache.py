"""The quantised base is kept, comes back the same bits, and is never taken for another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.bases import assert_same_base, load_by_transformers, load_small, settings_for

from trainer.models import load as loader
from trainer.models.locate import locate_base
from trainer.runtime.device import Precision, find_device
from trainer.storage.files import sha256_of
from trainer.storage.manifest import seal

Tensors = dict[str, torch.Tensor]

ON_GPU = torch.cuda.is_available()


def test_the_quantised_base_is_kept_and_comes_back_the_same(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    settings = settings_for(base, tmp_path / "scratch", BASE_CACHE_URI=str(tmp_path / "cache"))
    located = locate_base(settings)
    first = loader.load_base(located, settings, Precision("fp32", ""), find_device())
    for path in base.glob("*.safetensors"):
        path.unlink()  # what is kept is enough
    again = loader.load_base(located, settings, Precision("fp32", ""), find_device())
    assert_same_base(again, first)
    assert_same_base(again, load_by_transformers(llama))
    (kept,) = (tmp_path / "cache").iterdir()
    assert json.loads((kept / "source.json").read_text())["revision"] == located.revision
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))


def test_a_kept_base_that_is_damaged_is_made_again(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(llama, tmp_path / "scratch", BASE_CACHE_URI=str(tmp_path / "cache"))
    load_small(settings)
    (weights,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert_same_base(load_small(settings), load_by_transformers(llama))
    assert "is not what its manifest lists; quantising the base again" in caplog.text
    assert weights.read_bytes() == whole


def test_a_kept_base_is_not_taken_for_another_dtype(llama: Path, tmp_path: Path) -> None:
    settings = settings_for(llama, tmp_path / "scratch", BASE_CACHE_URI=str(tmp_path / "cache"))
    load_small(settings, "fp32")
    assert_same_base(load_small(settings, "bf16"), load_by_transformers(llama, "bf16"))


@pytest.mark.skipif(ON_GPU, reason="a GPU adds in the same order whatever the threads")
def test_a_kept_base_is_not_taken_with_other_threads_whose_sums_differ(
    llama: Path, tmp_path: Path
) -> None:
    settings = settings_for(llama, tmp_path / "scratch", BASE_CACHE_URI=str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    try:
        for number in (threads, threads + 1, threads):
            torch.set_num_threads(number)
            load_small(settings)
    finally:
        torch.set_num_threads(threads)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_kept_base_that_lacks_a_weight_is_made_again(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(llama, tmp_path / "scratch", BASE_CACHE_URI=str(tmp_path / "cache"))
    load_small(settings)
    (kept,) = (tmp_path / "cache").iterdir()
    (weights,) = kept.glob("*.safetensors")
    some = load_file(weights)
    del some["model.norm.weight"]
    save_file(some, weights)
    content = {"size": weights.stat().st_size, "sha256": sha256_of(weights)}
    (kept / "manifest.json").write_text(json.dumps({"objects": {weights.name: content}}))
    assert_same_base(load_small(settings), load_by_transformers(llama))
    assert "its files have no model.norm.weight; quantising the base again" in caplog.text
    assert "model.norm.weight" in load_file(weights)


def cut_scales(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.weight.absmax"] = torch.zeros(1, dtype=torch.uint8)


def cut_second_scales(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.up_proj.weight.nested_absmax"] = torch.zeros(0)


def cut_weight(tensors: Tensors) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-8].clone()


def another_norm(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = torch.ones(3)


def integers(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int64)


def unknown(tensors: Tensors) -> None:
    tensors["model.evil"] = torch.ones(3)


def no_scales(tensors: Tensors) -> None:
    del tensors["model.layers.0.mlp.up_proj.weight.absmax"]


def another_state(changes: dict[str, Any]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        name = "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4"
        state = json.loads(tensors[name].numpy().tobytes()) | changes
        tensors[name] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    return change


STATES = [
    {"shape": [1, 1]}, {"blocksize": 4096}, {"dtype": "float64"}, {"quant_type": "fp4"},
    {"nested_blocksize": 2}, {"nested_offset": float("nan")}, {"nested_offset": "x"},
    {"nested_offset": 10**400}, {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    "spoil",
    [cut_scales, cut_second_scales, cut_weight, another_norm, integers, unknown, no_scales]
    + [another_state(changes) for changes in STATES],
)
def test_a_kept_base_that_is_not_what_would_be_made_is_made_again(
    llama: Path, tmp_path: Path, spoil: Callable[[Tensors], None], caplog: pytest.LogCaptureFixture
) -> None:
    """With a manifest that lists what is there: bitsandbytes would read past its ends."""
    settings = settings_for(llama, tmp_path / "scratch", BASE_CACHE_URI=str(tmp_path / "cache"))
    load_small(settings)
    (kept,) = (tmp_path / "cache").iterdir()
    (weights,) = kept.glob("*.safetensors")
    tensors = load_file(weights)
    spoil(tensors)
    save_file(tensors, weights)
    seal(kept)
    assert_same_base(load_small(settings), load_by_transformers(llama))
    assert "quantising the base again" in caplog.text
