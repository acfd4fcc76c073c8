"""Merging: the base's own bytes with the adapter added and rounded once, in little memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support import gigabyte
from support.jobs import ROOT
from support.small_adapters import TINY, edit, random_adapter, tiny_as
from transformers import AutoModelForCausalLM

from trainer.errors import DataError, DoesNotFitError, JobError, SettingsError
from trainer.export.merged import merge
from trainer.models import adapters
from trainer.settings import Settings

MB = 10**6


@pytest.fixture(scope="module")
def merged(run: Path) -> Path:
    return merged_into(run / "merged", run)


def merged_into(output: Path, run: Path, base: Path | None = None) -> Path:
    settings = Settings.read({}, {}, trains=False)
    return merge(adapters.find_adapter(str(run), settings, base and str(base)), settings, output)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 203).reshape(2, 100)
    with torch.no_grad():
        return model.eval()(ids).logits


def loaded(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_every_merged_weight_is_base_plus_adapter_rounded_once(run: Path, merged: Path) -> None:
    before, after = load_file(TINY / "model.safetensors"), load_file(merged / "model.safetensors")
    halves = load_file(run / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    changed = 0
    for name, weight in before.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (halves.get(f"{layer}.lora_{half}.weight") for half in "AB")
        if a is None or b is None:
            assert torch.equal(weight, after[name]), name
            continue
        changed += 1
        exact = weight.double() + 2 * b.double() @ a.double()
        # Half a unit in the last of bfloat16's 8 bits; the rest is float32's own rounding.
        assert ((after[name].double() - exact).abs() <= exact.abs() * 2**-8 + 1e-7).all(), name
        assert not torch.equal(weight, after[name])
    assert changed == 4 * 7


@pytest.mark.parametrize(("dtype", "of_the_effect"), [("bfloat16", 0.02), ("float32", 1e-5)])
def test_logits_are_those_of_base_and_adapter_within_rounding(
    dtype: str, of_the_effect: float, tmp_path: Path
) -> None:
    base = tiny_as(tmp_path / "base", dtype)
    run = random_adapter(tmp_path / "run", base)
    output = merged_into(tmp_path / "merged", run, base)
    without = logits(loaded(base))
    with_adapter = logits(PeftModel.from_pretrained(loaded(base), run / "adapter"))
    effect = (with_adapter - without).abs().mean()
    assert (logits(loaded(output)) - with_adapter).abs().mean() < of_the_effect * effect


def test_a_base_in_shards_stays_in_its_shards_and_its_precision(run: Path, tmp_path: Path) -> None:
    base = tiny_as(tmp_path / "base", "float16", "3MB")
    shards = sorted(p.name for p in base.glob("*.safetensors"))
    assert len(shards) > 1
    (base / "consolidated.safetensors").write_bytes(b"the same once more, as Mistral's folders do")
    output = merged_into(tmp_path / "merged", run, base)
    assert sorted(p.name for p in output.glob("*.safetensors")) == shards
    kinds = {tensor.dtype for shard in shards for tensor in load_file(output / shard).values()}
    assert kinds == {torch.float16}
    assert torch.isfinite(logits(loaded(output))).all()


def test_the_merged_model_words_and_ends_answers_as_in_training(run: Path, merged: Path) -> None:
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == [1]
    template = "chat_template.jinja"
    assert (merged / template).read_text() == (run / "adapter" / template).read_text()
    assert not (merged / "adapter_config.json").exists()


def other_base(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    base = tiny_as(tmp_path / "wide", "bfloat16")
    weights = load_file(base / "model.safetensors")
    weights = {k: torch.cat([w, w], -1) if "q_proj" in k else w for k, w in weights.items()}
    save(weights, base / "model.safetensors")
    return run, base


def fewer_layers(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    base = tiny_as(tmp_path / "short", "bfloat16")
    weights = load_file(base / "model.safetensors")
    save({k: w for k, w in weights.items() if "layers.3" not in k}, base / "model.safetensors")
    return run, base


def quantised_base(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    base = tiny_as(tmp_path / "nf4", "bfloat16")
    edit(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    return run, base


def truncated_base(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    base = tiny_as(tmp_path / "cut", "bfloat16")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return run, base


def no_weights_at_all(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    base = tiny_as(tmp_path / "html", "bfloat16")
    (base / "model.safetensors").write_text("<html>not found</html>")
    return run, base


def dora(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    return random_adapter(tmp_path / "dora", use_dora=True), None


def no_adapter(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    return tmp_path, None


@pytest.mark.parametrize(
    ("case", "kind", "sentence"),
    [
        (other_base, DataError, r"the adapter is for \(256, 256\), wide has \(256, 512\)"),
        (fewer_layers, DataError, r"layers.3.\S+, which short does not have"),
        (quantised_base, SettingsError, "nf4: its weights are quantised already"),
        (truncated_base, DataError, "model.safetensors: .* not what its header says"),
        (no_weights_at_all, DataError, "model.safetensors: not a safetensors file"),
        (dora, DataError, "the adapter uses use_dora; only plain LoRA"),
        (no_adapter, DataError, "no adapter_config.json there"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_merged_says_so_and_leaves_nothing(
    case: "object", kind: type[JobError], sentence: str, run: Path, tmp_path: Path
) -> None:
    adapter, base = case(run, tmp_path)  # type: ignore[operator]
    with pytest.raises(kind, match=sentence):
        merged_into(tmp_path / "output", adapter, base)
    assert not list(tmp_path.glob("output*"))


def test_a_bucket_is_no_folder() -> None:
    from trainer.cli import cli

    arguments = ["merge", "--adapter", "x", "--output", "s3://bucket/merged"]
    with pytest.raises(SettingsError, match="--output s3://bucket/merged: is written to a folder"):
        cli.main(arguments, standalone_mode=False)


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
    run: Path, tiny_disk: Path
) -> None:
    with pytest.raises(DoesNotFitError, match=r"needs 0.0 GB, its disk has 0.0 GB left"):
        merged_into(tiny_disk / "output", run)
    assert not list(tiny_disk.iterdir())


def save(weights: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: weight.contiguous() for name, weight in weights.items()}, path)


def test_a_gigabyte_is_merged_in_600_mb_above_its_largest_tensor(tmp_path: Path) -> None:
    """Of memory that is the process's own. Pages of mapped files, which are libraries' here, are
    the system's to take back: 90 to 140 MB on one machine, by how the page cache came by them."""
    largest = gigabyte.write_base(tmp_path / "base")
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert 0.9e9 < size < 1.1e9
    adapter = gigabyte.write_adapter(tmp_path)
    program = (
        "from trainer.cli import main; main()\n"
        "print(*(l for l in open('/proc/self/status') if l.startswith(('VmHWM', 'RssFile'))))"
    )
    arguments = ["merge", "--adapter", adapter, "--base-model", tmp_path / "base"]
    arguments += ["--output", tmp_path / "out"]
    output = subprocess.check_output(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, text=True
    )
    peak, mapped = (
        int(re.findall(rf"{name}:\s+(\d+) kB", output)[0]) * 1024 for name in ("VmHWM", "RssFile")
    )
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == size
    print(
        f"merged {size / MB:.0f} MB, largest tensor {largest / MB:.0f} MB, "
        f"peak {peak / MB:.0f} MB, of files {mapped / MB:.0f} MB"
    )
    assert peak - mapped - largest < 600 * MB
