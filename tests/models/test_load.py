"""A base is the same bits as by transformers' own loader, wherever its weights are."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from safetensors.torch import load_file, save_file
from support.bases import (
    SIZES,
    assert_same_base,
    load_by_transformers,
    load_small,
    settings_for,
    write_base,
)
from support.small_adapters import edit

from trainer.errors import SettingsError
from trainer.models.locate import locate_base
from trainer.models.weight_files import fetch_weights

ON_GPU = torch.cuda.is_available()


@pytest.mark.cuda
@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["fp16"] if ON_GPU else [])])
def test_it_is_bit_identical_to_transformers_loader(
    tmp_path: Path, source: torch.dtype, precision: str
) -> None:
    from transformers import Qwen2Config

    tied = source == torch.float32
    config = Qwen2Config(**SIZES, tie_word_embeddings=tied)  # with biases
    folder = write_base(tmp_path / "base", config, source, "5GB" if tied else "60KB")
    ours = load_small(settings_for(folder, tmp_path / "scratch"), precision)
    assert_same_base(ours, load_by_transformers(folder, precision))
    assert not any(p.requires_grad for p in ours.parameters())


@pytest.mark.skipif(ON_GPU or not has_avx512bf16(), reason="bitsandbytes packs nothing here")
def test_what_is_quantised_stays_as_it_is_whatever_is_computed(llama: Path, tmp_path: Path) -> None:
    """bitsandbytes rounded the scales in evaluation mode and again with each state dict: the same
    adapter had a loss of 1.6710, 1.6683 and 1.6709, and was rejected."""
    ours, other = (load_small(settings_for(llama, tmp_path / "scratch")) for _ in range(2))
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        first = ours.eval()(tokens).logits
        ours.state_dict()
        assert torch.equal(ours(tokens).logits, first)
        assert torch.equal(ours.train()(tokens).logits, first)
    assert_same_base(ours.eval(), other)


def test_a_layout_it_does_not_know_goes_to_transformers_loader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=2, n_positions=64)
    folder = write_base(tmp_path / "base", config, torch.float32)
    with caplog.at_level(logging.INFO):
        ours = load_small(settings_for(folder, tmp_path / "scratch"))
    assert "read by transformers' own loader: its matrices are stored transposed" in caplog.text
    assert_same_base(ours, load_by_transformers(folder))


def test_transformers_sets_no_memory_aside_for_weights_that_are_there(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it would hold the base twice")

    monkeypatch.setattr("transformers.modeling_utils.caching_allocator_warmup", refuse)
    load_small(settings_for(llama, tmp_path / "scratch"))
    with pytest.raises(AssertionError):
        load_by_transformers(llama)


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_a_gpu_holds_little_more_than_the_quantised_weights_while_they_are_made(
    tmp_path: Path,
) -> None:
    from transformers import LlamaConfig

    sizes = SIZES | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    folder = write_base(tmp_path / "base", LlamaConfig(**sizes), torch.bfloat16)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    made = load_small(settings_for(folder, tmp_path / "scratch"), "fp16")
    quantised = sum(tensor.nbytes for tensor in made.state_dict().values())
    widest = 1024 * 4096 * 2
    # A matrix as it came and cast; the allocator's blocks of 20 MiB.
    assert torch.cuda.max_memory_reserved() - before < quantised + 2 * widest + (60 << 20)


@pytest.mark.s3
def test_a_base_in_a_bucket_never_lies_on_this_disk(
    bucket: Any, llama: Path, tmp_path: Path
) -> None:
    for path in llama.iterdir():
        bucket.upload_file(str(path), f"models/llama/{path.name}")
    uri = f"s3://{bucket.name}/models/llama/"
    kept = f"s3://{bucket.name}/kept/"
    expected = load_by_transformers(llama)
    assert_same_base(load_small(settings_for(uri, tmp_path / "scratch")), expected)
    settings = settings_for(uri, tmp_path / "scratch", BASE_CACHE_URI=kept)
    assert_same_base(load_small(settings), expected)
    assert_same_base(load_small(settings), expected)
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
    # For whoever needs the files themselves.
    paths = fetch_weights(locate_base(settings), settings)
    assert [p.read_bytes() for p in paths] == [(llama / p.name).read_bytes() for p in paths]


VISION = {
    "num_hidden_layers": 1,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        {"num_key_value_heads": 4},
        {"intermediate_size": 96},
        {"num_hidden_layers": 3},
        {
            "model_type": "gemma3",
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": SIZES | {"head_dim": 16},
            "vision_config": VISION,
        },
    ],
)
def test_a_config_of_another_model_than_the_weights_is_named(
    change: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    """transformers makes up what it does not find, and does not compare what it quantises."""
    folder = shutil.copytree(llama, tmp_path / "base")
    edit(folder / "config.json", **change)
    with pytest.raises(
        SettingsError, match=r"config\.json and weights do not belong together \(.+\)"
    ):
        load_small(settings_for(folder, tmp_path / "scratch"))


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "part", ["absmax", "nested_absmax", "quant_map", "nested_quant_map", "weight"]
)
def test_scales_that_somebody_else_has_stored_are_as_many_as_there_are(
    part: str, llama: Path, tmp_path: Path
) -> None:
    """Of one too few, native code reads what lies behind them in memory."""
    quantised = tmp_path / "base"
    load_by_transformers(llama).save_pretrained(quantised)
    load_small(settings_for(quantised, tmp_path / "scratch"))
    name = "model.layers.0.mlp.up_proj.weight"
    name = name if part == "weight" else f"{name}.{part}"
    changed(quantised, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    with pytest.raises(SettingsError, match=r"up_proj\.weight has .* in place of"):
        load_small(settings_for(quantised, tmp_path / "scratch"))
