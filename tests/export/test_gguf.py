"""GGUF files: read back by transformers' own reader, and by llama.cpp where it is installed.

`pip install llama-cpp-python` compiles for minutes, so it is not among the requirements.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from support.gguf_files import LLAMA_3, exported, llama_cpp, with_llama_cpp
from support.small_adapters import TINY, random_adapter, tiny_as
from support.small_models import CONFIGS
from support.tokenizers import make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.errors import SettingsError
from trainer.export.lora_delta import NF4, OWN
from trainer.models.load import load_base
from trainer.models.locate import local_base
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import question_ids, stop_ids

QUESTIONS = ["What does the Plover cost?", "How heavy is the Curlew?", "Who founded Hollin & Gale?"]
SAME = "mistral", "qwen2", "qwen3", "granite", "phi3", "olmo2", "olmo3", "seed_oss", "ministral3"
FAMILIES = {name: CONFIGS[name] for name in SAME}
FAMILIES["llama"] = {"num_key_value_heads": 2}
FAMILIES["llama-3"] = {"num_key_value_heads": 2, "rope_parameters": LLAMA_3}
FAMILIES["smollm3"] = CONFIGS["smollm3"] | {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}
GLOBAL = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}
FAMILIES["gemma3_text"] = CONFIGS["gemma3_text"] | {
    "query_pre_attn_scalar": 32,
    "rope_parameters": {
        "full_attention": GLOBAL,
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
    },
}


def family(name: str, folder: Path) -> Path:
    """A small random model of another family, with every vector away from its start value."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer("bytes")
    sizes = {
        "vocab_size": len(tokenizer) + 8, "hidden_size": 128, "intermediate_size": 320,
        "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    config = AutoConfig.for_model(name.removesuffix("-3"), **(sizes | FAMILIES[name]))
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    for parameter_name, parameter in made.named_parameters():
        if "bias" in parameter_name or "norm" in parameter_name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tuned(base: Path, run: Path, base_weights: str = NF4) -> Any:
    if base_weights == OWN:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    else:
        settings = Settings.read({}, {}, trains=False)
        known = local_base(base, base.name)
        model = load_base(known, settings, Precision("fp32", "test"), find_device())
    return PeftModel.from_pretrained(model, run / "adapter").eval()


def logits_BTV(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


# transformers does not read Llama 3's rotary factors and a head size of Qwen 3's own.
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("base_weights", [NF4, OWN])
def test_transformers_reads_the_same_model_from_the_file(
    name: str, base_weights: str, tmp_path: Path
) -> None:
    base = family(name, tmp_path / "base")
    run = random_adapter(tmp_path / "run", base)
    folder = exported(tmp_path / "files", run, base, base_weights)
    ids = list(range(5, 305))
    expected = logits_BTV(tuned(base, run, base_weights), ids)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file="merged.gguf")
    assert (logits_BTV(read, ids) - expected).abs().max() < 2e-3 * expected.abs().max()


@with_llama_cpp
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_llama_cpp_computes_the_same_model_from_the_files(name: str, tmp_path: Path) -> None:
    base = family(name, tmp_path / "base")
    run = random_adapter(tmp_path / "run", base)
    folder = exported(tmp_path / "files", run, base)
    ids = list(range(5, 305))
    expected = logits_BTV(tuned(base, run), ids)[0].numpy()
    for model in (
        llama_cpp(folder / "merged.gguf", logits_all=True),
        llama_cpp(folder / "base.gguf", folder / "adapter.gguf", logits_all=True),
    ):
        model.eval(ids)
        assert abs(model.scores[: len(ids)] - expected).max() < 5e-3 * abs(expected).max()


@with_llama_cpp
@pytest.mark.parametrize("part", ["base", "adapter", "merged"])
def test_llama_cpp_gives_the_answers_of_transformers(part: str, run: Path, files: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    model = tuned(TINY, run)
    if part == "base":
        model = model.unload()
    cpp = (
        llama_cpp(files / "base.gguf", files / "adapter.gguf")
        if part == "adapter"
        else llama_cpp(files / f"{part}.gguf")
    )
    for question in QUESTIONS:
        ids = torch.tensor([question_ids(tokenizer, question)])
        with torch.no_grad():
            answer = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=24, eos_token_id=stop_ids(tokenizer), pad_token_id=2,
            )  # fmt: skip
        expected = tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
        asked = [{"role": "user", "content": question}]
        reply = cpp.create_chat_completion(asked, temperature=0, max_tokens=24)
        assert reply["choices"][0]["message"]["content"].strip() == expected.strip()


def test_the_file_says_what_ends_an_answer_and_how_a_question_is_worded(files: Path) -> None:
    fields = GGUFReader(files / "merged.gguf").fields

    def value(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents()

    assert (value("ggml.bos_token_id"), value("ggml.eos_token_id")) == (0, 1)
    assert value("ggml.add_bos_token") is True
    assert value("ggml.pre") == "smollm"
    assert value("chat_template") == (TINY / "chat_template.jinja").read_text().rstrip("\n")


def test_the_file_says_which_of_the_base_s_weights_it_started_from(
    run: Path, files: Path, tmp_path: Path
) -> None:
    own = exported(tmp_path / "own", run, base_weights=OWN)
    for folder, words in ((files, "NF4 values of builtin:tiny"), (own, "own weights of builtin")):
        for part in ("merged", "base"):
            fields = GGUFReader(folder / f"{part}.gguf").fields
            assert f"It starts from the {words}" in fields["general.description"].contents()


def test_the_adapter_s_file_holds_its_pairs(run: Path, files: Path) -> None:
    reader = GGUFReader(files / "adapter.gguf")
    assert reader.fields["adapter.lora.alpha"].contents() == 16.0
    assert len(reader.tensors) == 2 * 4 * 7
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes["blk.0.ffn_down.weight.lora_a"] == [704, 8]  # llama.cpp counts from the inside
    assert shapes["blk.0.ffn_down.weight.lora_b"] == [8, 256]


def test_weights_beyond_float16_are_refused(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = tiny_as(tmp_path / "base", "bfloat16")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, base / "model.safetensors")
    with pytest.raises(SettingsError, match=r"up_proj.weight: holds values that float16 cannot"):
        exported(tmp_path / "output", run, base)
