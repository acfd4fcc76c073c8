"""What an adapter adds: base + scale · B·A, rounded once, in memory that is used again."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import gigabyte
from support.jobs import ROOT
from support.small_adapters import TINY, edit, random_adapter

from trainer.errors import DataError
from trainer.export import lora_delta
from trainer.export.lora_delta import Delta, MergedReader, deltas_of
from trainer.models.adapters import find_adapter
from trainer.models.safetensors_files import read_header
from trainer.settings import Settings

MB = 10**6


def deltas(run: Path) -> Any:
    adapter = find_adapter(str(run), Settings.read({}, {}, trains=False))
    return deltas_of(adapter, read_header(TINY / "model.safetensors")[1])


def test_the_deltas_are_those_of_peft(tmp_path: Path) -> None:
    run = random_adapter(tmp_path, r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"])
    found = deltas(run)
    halves = load_file(run / "adapter" / "adapter_model.safetensors")
    assert len(found) == 4 * 2
    for name, delta in found.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        assert torch.equal(delta.a_RI, halves[f"{layer}.lora_A.weight"])
        assert torch.equal(delta.b_OR, halves[f"{layer}.lora_B.weight"])
        assert delta.scale == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("values_at_once", [3, 100, 2**22])
def test_pieces_of_any_size_give_the_same_bits(
    dtype: torch.dtype, values_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_delta, "VALUES_AT_ONCE", values_at_once)
    torch.manual_seed(0)
    weights = {
        "tuned": torch.randn(37, 11).to(dtype),
        "other": torch.randn(5, 3).to(dtype),
        "more": torch.arange(7),
    }
    save_file(weights, tmp_path / "model.safetensors")
    delta = Delta(torch.randn(4, 11), torch.randn(37, 4), 0.5)
    _, stored = read_header(tmp_path / "model.safetensors")
    reader = MergedReader(stored, {"tuned": delta})
    read = {tensor.name: reader.read(tensor).clone() for tensor in stored}
    wanted = weights["tuned"].float() + 0.5 * (delta.b_OR @ delta.a_RI)
    assert torch.allclose(read["tuned"].float(), wanted.to(dtype).float(), atol=1e-6, rtol=2**-7)
    assert torch.equal(read["other"], weights["other"])
    assert torch.equal(read["more"], weights["more"].view(torch.uint8))


def test_an_adapter_with_a_half_missing_is_refused(tmp_path: Path) -> None:
    run = random_adapter(tmp_path)
    file = run / "adapter" / "adapter_model.safetensors"
    halves = load_file(file)
    del halves[next(name for name in halves if "lora_B" in name)]
    save_file(halves, file)
    with pytest.raises(DataError, match="55 tensors, 54 of them in LoRA pairs; only plain LoRA"):
        deltas(run)


@pytest.mark.parametrize("option", lora_delta._BEYOND_PLAIN_LORA)
def test_what_is_more_than_plain_lora_is_refused_by_its_name(option: str, tmp_path: Path) -> None:
    run = random_adapter(tmp_path, target_modules=["q_proj"])
    edit(run / "adapter" / "adapter_config.json", **{option: ["something"]})
    with pytest.raises(DataError, match=f"the adapter uses {option}[,;] "):
        deltas(run)


READ_ALL = """
import re, sys
from pathlib import Path
import torch
from trainer.export.lora_delta import Delta, MergedReader
from trainer.models.safetensors_files import read_header

def anonymous_bytes():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"RssAnon:\\s+(\\d+) kB", status)[0])

_, stored = read_header(Path(sys.argv[1]))
deltas = {
    t.name: Delta(torch.ones(8, t.shape[1]), torch.ones(t.shape[0], 8), 1.0)
    for t in stored if ".layers." in t.name and len(t.shape) == 2
}
torch.ones(8, 8) @ torch.ones(8, 8)
before = most = anonymous_bytes()
reader = MergedReader(stored, deltas)
for tensor in stored:
    reader.read(tensor)
    most = max(most, anonymous_bytes())
print(most - before)
"""


def test_reading_takes_the_largest_tensor_and_two_pieces_and_leaves_no_holes(
    tmp_path: Path,
) -> None:
    largest = gigabyte.write_base(tmp_path / "base", layers=3)
    out = subprocess.check_output(
        [sys.executable, "-c", READ_ALL, tmp_path / "base" / "model.safetensors"], cwd=ROOT
    )
    assert int(out) < largest + 2 * 4 * lora_delta.VALUES_AT_ONCE + 16 * MB
