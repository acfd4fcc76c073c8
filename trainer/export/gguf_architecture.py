"""What llama.cpp calls a model and its tensors, and how it wants them arranged."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gguf

from trainer.errors import SettingsError
from trainer.export.gguf_families import FAMILIES, Family
from trainer.models.base_model import Base
from trainer.models.safetensors_files import StoredTensor
from trainer.planner.model_shape import head_size

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = r"^(model\.)?(vision_tower|multi_modal_projector)\."
TEXT = r"^(language_model\.model|model\.language_model)\."


@dataclass(frozen=True)
class Architecture:
    """A base model seen from llama.cpp; `config` is that of its language model."""

    name: str
    family: Family
    config: Any

    @property
    def arch(self) -> gguf.MODEL_ARCH:
        return self.family.arch

    @property
    def rope(self) -> Any:
        """Of the layers that see all: some families have another one for those with a window."""
        return self.config.rope_parameters.get("full_attention", self.config.rope_parameters)

    def of_text(self, stored: Sequence[StoredTensor]) -> list[StoredTensor]:
        """What belongs in the file: an image tower has one of its own."""
        return [tensor for tensor in stored if not re.match(IMAGES, tensor.name)]

    def tensor(self, name: str) -> str:
        """llama.cpp's name for a tensor. Raises SettingsError when it has none."""
        names = gguf.get_tensor_name_map(self.arch, self.config.num_hidden_layers)
        plain = re.sub(TEXT, "model.", name).removeprefix("language_model.")
        found: str | None = names.get_name(plain, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise SettingsError(refusal(self.name, f"tensor {name}"))
        return found

    def arranged(self, name: str, rows: "Tensor") -> "Tensor":
        """As llama.cpp wants it: query and key may rotate neighbours there, halves in transformers,
        and a norm multiplies by its weight alone."""
        if self.family.norm_offset and name.endswith("norm.weight"):
            return rows.float() + self.family.norm_offset
        heads = {
            "q_proj": self.config.num_attention_heads,
            "k_proj": self.config.num_key_value_heads,
        }.get(name.split(".")[-2])
        if heads is None or not self.family.neighbours:
            return rows
        halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)

    def rope_factors(self) -> "Tensor | None":
        """What Llama 3.1 and later divide their rotary frequencies by, None for others.

        As in "The Llama 3 Herd of Models" and transformers' `_compute_llama3_parameters`.
        """
        import torch

        rope = self.rope
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
        writer.add_rope_freq_base(self.rope["rope_theta"])
        writer.add_layer_norm_rms_eps(text.rms_norm_eps)
        self._describe_scaling(writer)
        self.family.describe(writer, text)

    def _describe_scaling(self, writer: gguf.GGUFWriter) -> None:
        """Of positions, to more of them than there were in the beginning."""
        rope = self.rope
        if rope["rope_type"] not in ("linear", "yarn"):
            return
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
            writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
            writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)


def architecture_of(base: Base) -> Architecture:
    """Raises SettingsError for an architecture or a rotary embedding that is not written here."""
    text = base.config.get_text_config()
    known = (base.config.architectures or ["no architecture"])[0]
    if known not in FAMILIES:
        raise SettingsError(refusal(base.name, known))
    found = Architecture(base.name, FAMILIES[known], text)
    activation = getattr(text, "hidden_activation", None) or text.hidden_act
    faults = [f"activation {activation}"] if activation != found.family.activation else []
    kind = found.rope["rope_type"]
    if kind not in found.family.ropes:
        faults.append(f"rotary embedding {kind}")
    faults += found.family.faults(text)
    if faults:
        raise SettingsError(refusal(base.name, " and ".join(faults)))
    return found


def refusal(name: str, what: str) -> str:
    return (
        f"{name}: export cannot write its {what}; use merge and then llama.cpp's "
        "convert_hf_to_gguf.py"
    )
