"""Weights become NF4 as they are read; files that the model does not expect are said to be so."""

from typing import Any

import pytest
import torch
from support.safetensors import entry, file_of

from trainer.errors import SettingsError
from trainer.models.checkpoint_names import Place
from trainer.models.experts import ExpertLayout
from trainer.models.nf4_stream import UnknownLayoutError, WeightLayout, quantise
from trainer.models.safetensors_stream import Shard

CPU = torch.device("cpu")
LAYOUT = WeightLayout(
    expected={"layer.weight": (torch.float32, (64, 2)), "norm.weight": (torch.float32, (2,))},
    quantised=frozenset({"layer.weight"}),
    tied=frozenset(),
    ignored=(r"inv_freq$",),
)
LAYER, NORM = entry(0, 512, [64, 2]), entry(512, 520, [2])


def quantised(header: dict[str, Any], keep: Any = lambda tensors: tensors) -> dict[str, Any]:
    data = torch.randn(130, generator=torch.Generator().manual_seed(0)).numpy().tobytes()
    content = file_of(header, data[: max(entry["data_offsets"][1] for entry in header.values())])
    shard = Shard("a/shard", len(content), lambda: iter([content]))
    return quantise([shard], LAYOUT, CPU, keep)


def test_what_is_kept_is_decided_tensor_by_tensor() -> None:
    seen: list[list[str]] = []

    def keep(tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(sorted(tensors))
        return {name: tensor for name, tensor in tensors.items() if "nested" not in name}

    found = quantised({"layer.weight": LAYER, "norm.weight": NORM}, keep)
    assert [names[0] for names in seen] == ["layer.weight", "norm.weight"]
    assert found["layer.weight"].shape == (64, 1)  # two values in a byte
    assert found["norm.weight"].dtype == torch.float32
    assert sorted(found) == sorted(n for names in seen for n in names if "nested" not in n)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"layer.weight": LAYER}, "its files have no norm.weight"),
        ({"layer.weight": LAYER, "more": NORM}, "the model has no more"),
        ({"layer.weight": LAYER, "norm.weight": entry(512, 514, [2], "F8_E4M3")}, "is F8_E4M3"),
        ({"layer.weight": entry(0, 512, [2, 64])}, r"\[2, 64\] where the model has \(64, 2\)"),
    ],
)
def test_files_that_are_not_the_model_s_are_not_taken(header: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnknownLayoutError, match=reason):
        quantised(header)


def test_a_weight_of_whole_numbers_is_none() -> None:
    """transformers would take the bits of a bfloat16 that is called an I16 for its value."""
    header = {"layer.weight": LAYER, "norm.weight": entry(512, 520, [2], "I32")}
    with pytest.raises(SettingsError, match=r"norm\.weight is I32 in its file, and a weight is of"):
        quantised(header)


def test_what_a_model_ignores_is_left_in_its_file() -> None:
    header = {"layer.weight": LAYER, "norm.weight": NORM, "rotary.inv_freq": entry(520, 520, [0])}
    assert not [name for name in quantised(header) if "inv_freq" in name]


def test_a_matrix_of_the_experts_too_few_or_too_many_is_named() -> None:
    experts = {"experts.up": ExpertLayout(2, 1, 64, 2)}
    places = {f"e.{n}": Place("experts.up", n) for n in range(3)}
    layout = WeightLayout({}, frozenset(), frozenset(), (), experts, torch.float32, places.get)
    whole = {"e.0": entry(0, 512, [64, 2]), "e.1": entry(512, 1024, [64, 2])}
    content = file_of(whole, torch.randn(256).numpy().tobytes())
    made = quantise([Shard("a", len(content), lambda: iter([content]))], layout, CPU, dict)
    assert made["experts.up.packed"].shape == (2, 64)
    more = file_of({"e.2": entry(0, 512, [64, 2])}, bytes(512))
    with pytest.raises(UnknownLayoutError, match=r"the model has no e\.2"):
        quantise([Shard("a", len(more), lambda: iter([more]))], layout, CPU, dict)
    half = file_of({"e.1": entry(0, 512, [64, 2])}, bytes(512))
    with pytest.raises(UnknownLayoutError, match=r"no matrix 0 of experts\.up"):
        quantise([Shard("a", len(half), lambda: iter([half]))], layout, CPU, dict)
