"""A model with random weights in NF4, made where it computes: real sizes, nothing downloaded."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bitsandbytes
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from trainer.models.architecture import adaptable_layers, peft_targets
from trainer.models.experts import expert_layouts
from trainer.models.nf4_experts import put_experts
from trainer.models.nf4_stream import empty_experts, quantise_matrix

BUILTIN = Path(__file__).parent.parent / "trainer" / "builtin" / "tiny"
SPREAD = 0.02  # standard deviation of a fresh Llama's weights


def llama_2_7b(layers: int = 32) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        max_position_embeddings=131072,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )


def llama_3_8b() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )


def random_model(config: Any, dtype: torch.dtype, seed: int = 0, device: str = "cuda") -> Any:
    """The model, frozen; its linear layers but the head are `Linear4bit`, doubly quantised, and its
    experts, which are all alike in a layer, NF4 as the job makes them."""
    torch.manual_seed(seed)
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    with init_empty_weights(include_buffers=False):
        model = kind(config)
    head = model.get_output_embeddings()
    layouts = expert_layouts(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and child is not head:
                setattr(module, name, _quantised(child, dtype, device))
    put_experts(model, layouts, _random_experts(layouts, dtype, device), dtype)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = torch.empty(parameter.shape, dtype=dtype, device=device)
                is_norm = name == "weight" and parameter.dim() == 1
                value = value.fill_(1) if is_norm else value.normal_(0, SPREAD)
                setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
    model.tie_weights()
    return model.requires_grad_(False)


def _random_experts(layouts: Any, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """What NF4 makes of one random matrix, for all of a weight."""
    found: dict[str, torch.Tensor] = {}
    for name, layout in layouts.items():
        values = torch.empty(layout.matrix_shape, dtype=dtype, device=device).normal_(0, SPREAD)
        made = empty_experts(layout, torch.device(device))
        quantise_matrix(values, 0, made, dtype)
        found |= {
            f"{name}.{part}": tensor.copy_(tensor[:1].clone()) for part, tensor in made.items()
        }
    return found


def _quantised(linear: torch.nn.Linear, dtype: torch.dtype, device: str) -> Any:
    shape = linear.out_features, linear.in_features
    made = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    values = torch.empty(shape, dtype=dtype, device=device).normal_(0, SPREAD)
    weight = bitsandbytes.nn.Params4bit(
        values, requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    weight = weight.to(device)
    made.weight = weight if weight.bnb_quantized else weight._quantize(device)
    made.support_avx512bf16_for_cpu = False
    return made


def with_adapter(
    model: Any, targets: list[str] | None, *, dropout: float = 0.0, rank: int = 8
) -> Any:
    """`model` with a float32 adapter whose B is not zero, so that every gradient counts; on all
    linear layers where no targets are given."""
    tuned = get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=dropout,
            target_modules=targets or peft_targets(model, adaptable_layers(model)),
            task_type="CAUSAL_LM",
        ),
    )
    noise = torch.Generator(next(model.parameters()).device).manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            if "lora_B" in name:
                parameter.data.normal_(0, 1e-3, generator=noise)
    return tuned.train()


def write_checkpoint(config: LlamaConfig, folder: Path, dtype: torch.dtype) -> None:
    """The same shapes as an unquantised checkpoint with the built-in model's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures, config.dtype = ["LlamaForCausalLM"], dtype
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / name, folder / name)
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in LlamaForCausalLM(config).named_parameters()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight_map: dict[str, str] = {}
    names = list(shapes)
    for number, first in enumerate(range(0, len(names), 60)):
        part = {
            name: (
                torch.ones(shapes[name], dtype=dtype)
                if len(shapes[name]) == 1
                else torch.empty(shapes[name], dtype=dtype, device=device).normal_(0, SPREAD).cpu()
            )
            for name in names[first : first + 60]
        }
        shard = f"model-{number + 1:05}.safetensors"
        save_file(part, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
