"""What llama.cpp calls a model and its tensors, and how it wants them arranged."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gguf

from trainer.errors import SettingsError
from trainer.models.base_model import Base
from trainer.planner.model_shape import head_size

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
ROPES = ("default", "llama3")


@dataclass(frozen=True)
class Architecture:
    """A base model seen from llama.cpp; `config` is that of its language model."""

    name: str
    arch: gguf.MODEL_ARCH
    config: Any

    def tensor(self, name: str) -> str:
        """llama.cpp's name for a tensor. Raises SettingsError when it has none."""
        names = gguf.get_tensor_name_map(self.arch, self.config.num_hidden_layers)
        found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise SettingsError(refusal(self.name, f"tensor {name}"))
        return found

    def permuted(self, name: str, rows: "Tensor") -> "Tensor":
        """Query and key of the Llama family rotate neighbours there, halves in transformers."""
        heads = {
            "q_proj": self.config.num_attention_heads,
            "k_proj": self.config.num_key_value_heads,
        }.get(name.split(".")[-2])
        if heads is None or self.arch != gguf.MODEL_ARCH.LLAMA:
            return rows
        halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)

    def rope_factors(self) -> "Tensor | None":
        """What Llama 3.1 and later divide their rotary frequencies by, None for others.

        As in "The Llama 3 Herd of Models" and transformers' `_compute_llama3_parameters`.
        """
        import torch

        rope = self.config.rope_parameters
        if rope["rope_type"] != "llama3":
            return None
        size = head_size(self.config)
        exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
        turns = rope["original_max_position_embeddings"] / (2 * math.pi)
        turns = turns / rope["rope_theta"] ** exponents  # in the length it was trained on first
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        factors: Tensor = 1 / ((1 - kept) / rope["factor"] + kept)
        return factors

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The sizes, under llama.cpp's keys."""
        text = self.config
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(self.name)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_vocab_size(text.vocab_size)
        writer.add_context_length(text.max_position_embeddings)
        writer.add_embedding_length(text.hidden_size)
        writer.add_block_count(text.num_hidden_layers)
        writer.add_feed_forward_length(text.intermediate_size)
        writer.add_head_count(text.num_attention_heads)
        writer.add_head_count_kv(text.num_key_value_heads)
        writer.add_key_length(head_size(self.config))
        writer.add_value_length(head_size(self.config))
        writer.add_rope_dimension_count(head_size(self.config))
        writer.add_rope_freq_base(text.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(text.rms_norm_eps)


def architecture_of(base: Base) -> Architecture:
    """Raises SettingsError for an architecture or a rotary embedding that is not written here."""
    text = base.config.get_text_config()
    known = (base.config.architectures or ["no architecture"])[0]
    if known not in ARCHITECTURES:
        raise SettingsError(refusal(base.name, known))
    if text.hidden_act != "silu":
        raise SettingsError(refusal(base.name, f"activation {text.hidden_act}"))
    rope = text.rope_parameters["rope_type"]
    if rope not in ROPES:
        raise SettingsError(refusal(base.name, f"rotary embedding {rope}"))
    return Architecture(base.name, ARCHITECTURES[known], text)


def refusal(name: str, what: str) -> str:
    return (
        f"{name}: export cannot write its {what}; use merge and then llama.cpp's "
        "convert_hf_to_gguf.py"
    )
