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
from trainer.export.lora_delta import NF4, OWN
from trainer.export.merged import merge
from trainer.models import adapters
from trainer.models.load import load_base
from trainer.models.locate import local_base
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings

QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True}

MB = 10**6
SETTINGS = Settings.read({}, {}, trains=False)


@pytest.fixture(scope="module")
def merged(run: Path) -> Path:
    return merged_into(run / "merged", run, base_weights=OWN)


def merged_into(output: Path, run: Path, base: Path | None = None, base_weights: str = NF4) -> Path:
    adapter = adapters.find_adapter(str(run), SETTINGS, base and str(base))
    return merge(adapter, SETTINGS, output, base_weights)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 203).reshape(2, 100)
    with torch.no_grad():
        return model.eval()(ids).logits


def loaded(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_onto_the_base_s_own_weights_each_is_base_plus_adapter_rounded_once(
    run: Path, merged: Path
) -> None:
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
    output = merged_into(tmp_path / "merged", run, base, OWN)
    without = logits(loaded(base))
    with_adapter = logits(PeftModel.from_pretrained(loaded(base), run / "adapter"))
    effect = (with_adapter - without).abs().mean()
    assert (logits(loaded(output)) - with_adapter).abs().mean() < of_the_effect * effect


def in_four_bits(base: Path, run: Path, precision: str) -> torch.nn.Module:
    """The adapter on the base that it was trained on."""
    adapter = adapters.find_adapter(str(run), SETTINGS, str(base))
    held = load_base(adapter.base, SETTINGS, Precision(precision, "test"), find_device())
    return PeftModel.from_pretrained(held, run / "adapter")


@pytest.mark.parametrize(("dtype", "of_the_effect"), [("bfloat16", 0.02), ("float32", 1e-4)])
def test_by_itself_it_answers_as_the_adapter_on_the_four_bits_it_was_trained_on(
    dtype: str, of_the_effect: float, tmp_path: Path
) -> None:
    base = tiny_as(tmp_path / "base", dtype)
    run = random_adapter(tmp_path / "run", base)
    trained = in_four_bits(base, run, "fp32")
    with_adapter = logits(trained)
    with trained.disable_adapter():
        effect = (with_adapter - logits(trained)).abs().mean()
    off = {
        start: (logits(loaded(merged_into(tmp_path / start, run, base, start))) - with_adapter)
        for start in (NF4, OWN)
    }
    assert off[NF4].abs().mean() < of_the_effect * effect
    assert off[OWN].abs().mean() > 5 * off[NF4].abs().mean()


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


def test_what_it_started_from_stands_in_its_config_and_its_card(
    run: Path, merged: Path, tmp_path: Path
) -> None:
    revision = json.loads((run / "adapter" / "adapter_config.json").read_text())["revision"]
    base = {"base": "builtin:tiny", "revision": revision}
    own = json.loads((merged / "config.json").read_text())
    assert own == json.loads((TINY / "config.json").read_text()) | {
        "merged_adapter": base | {"base_weights": "16bit"}
    }
    assert "not from the NF4 values" in (merged / "README.md").read_text()
    started = merged_into(tmp_path / "nf4", run)
    assert json.loads((started / "config.json").read_text())["merged_adapter"] == base | {
        "base_weights": "nf4", "compute_dtype": "float32"
    }  # fmt: skip
    assert "trained on, dequantised in float32, so" in (started / "README.md").read_text()


def test_it_is_not_quantised_again_without_a_word(
    merged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_base(local_base(merged, "merged"), SETTINGS, Precision("fp32", "test"), find_device())
    assert "merged holds a merged adapter, which NF4 can round away whole" in caplog.text


def test_it_answers_greedily_as_it_was_tested(run: Path, tmp_path: Path) -> None:
    base = tiny_as(tmp_path / "base", "bfloat16")
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.05}
    edit(base / "generation_config.json", **sampling)
    output = merged_into(tmp_path / "merged", run, base)
    left = json.loads((output / "generation_config.json").read_text())
    assert not left.keys() & {"do_sample", "temperature", "top_p"}
    assert left["repetition_penalty"] == 1.05


def test_nothing_of_an_adapter_is_dropped_on_a_base_in_float64(run: Path, tmp_path: Path) -> None:
    base = tiny_as(tmp_path / "base", "bfloat16")
    weights = load_file(base / "model.safetensors")
    save({name: weight.double() for name, weight in weights.items()}, base / "model.safetensors")
    after = load_file(merged_into(tmp_path / "merged", run, base, OWN) / "model.safetensors")
    halves = load_file(run / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    a, b = (halves[f"base_model.model.{name}.lora_{half}.weight"].double() for half in "AB")
    exact = weights[f"{name}.weight"].double() + 2 * b @ a
    assert after[f"{name}.weight"].dtype == torch.float64
    assert torch.allclose(after[f"{name}.weight"], exact, atol=1e-6)


def base_in_eight_bits(run: Path, tmp_path: Path) -> tuple[Path, Path | None]:
    base = tiny_as(tmp_path / "fp8", "bfloat16")
    weights = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save(weights | {name: weights[name].to(torch.float8_e4m3fn)}, base / "model.safetensors")
    return run, base


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
    edit(base / "config.json", quantization_config=QUANTISED)
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
        (base_in_eight_bits, SettingsError, "is F8_E4M3, to which nothing can be added"),
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
