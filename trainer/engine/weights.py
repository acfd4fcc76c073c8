"""The tensors of a decoder, taken out of a peft model: linear layers with adapters, layers."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from trainer.kernels.dequantise import Nf4
from trainer.planner.model_shape import head_size

LoraKey = tuple[int, str]
"""Names one tensor of the adapter: the number of its linear layer, "A" or "B"."""


@dataclass(frozen=True)
class Lora:
    """The adapter of a linear layer, which adds scale B A drop(x)."""

    a: torch.nn.Parameter  # [r, in]
    b: torch.nn.Parameter  # [out, r]
    scale: float
    dropout: float

    @classmethod
    def of(cls, module: Any) -> "Lora":
        """From one of peft's LoRA layers."""
        (name,) = module.active_adapters
        return cls(
            a=module.lora_A[name].weight,
            b=module.lora_B[name].weight,
            scale=module.scaling[name],
            dropout=getattr(module.lora_dropout[name], "p", 0.0),
        )


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer and, where it has one, its adapter."""

    weight: Nf4
    bias: torch.Tensor | None
    number: int  # counted through all layers; the salt of its dropout
    lora: Lora | None = None

    @classmethod
    def of(cls, module: Any, number: int) -> "Linear":
        """From bitsandbytes' Linear4bit, bare or inside peft's. ValueError for anything else."""
        base = getattr(module, "base_layer", module)
        if not hasattr(getattr(base, "weight", None), "quant_state"):
            raise ValueError(f"{type(base).__name__} is no 4-bit layer")
        lora = None if base is module else Lora.of(module)
        return cls(Nf4.of(base.weight), base.bias, number, lora)

    @property
    def a_key(self) -> LoraKey:
        return self.number, "A"

    @property
    def b_key(self) -> LoraKey:
        return self.number, "B"


@dataclass(frozen=True)
class Layer:
    """One decoder layer; Qwen3 alone has norms on the heads of q and k."""

    attention_norm: torch.Tensor
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    mlp_norm: torch.Tensor
    gate: Linear
    up: Linear
    down: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    epsilon: float
    head_size: int

    def linears(self) -> tuple[Linear, ...]:
        return self.q, self.k, self.v, self.o, self.gate, self.up, self.down

    def without_adapter(self) -> "Layer":
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        bare: dict[str, Any] = {
            name: replace(value, lora=None)
            for name, value in own.items()
            if isinstance(value, Linear)
        }
        return replace(self, **bare)


@dataclass(frozen=True)
class DecoderWeights:
    """All of a decoder. `embedding` [V, H] and `head` [V, H] may be one tensor."""

    embedding: torch.nn.Parameter
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    epsilon: float
    head: torch.nn.Parameter
    rotary: Any  # transformers' module: cos and sin of positions

    @classmethod
    def of(cls, model: Any) -> "DecoderWeights":
        """Of a decoder of a known family, bare or inside a PeftModel."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        return cls(
            embedding=base.get_input_embeddings().weight,
            layers=tuple(_layers(base)),
            norm=base.model.norm.weight,
            epsilon=base.model.norm.variance_epsilon,
            head=base.get_output_embeddings().weight,
            rotary=base.model.rotary_emb,
        )

    def without_adapter(self) -> "DecoderWeights":
        return replace(self, layers=tuple(layer.without_adapter() for layer in self.layers))

    def linears(self) -> list[Linear]:
        return [linear for layer in self.layers for linear in layer.linears()]


def _layers(base: Any) -> Iterator[Layer]:
    for number, module in enumerate(base.model.layers):
        attention, mlp = module.self_attn, module.mlp
        modules = (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            mlp.gate_proj, mlp.up_proj, mlp.down_proj,
        )  # fmt: skip
        q, k, v, o, gate, up, down = (
            Linear.of(m, number * len(modules) + i) for i, m in enumerate(modules)
        )
        q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        yield Layer(
            attention_norm=module.input_layernorm.weight,
            q=q, k=k, v=v, o=o,
            mlp_norm=module.post_attention_layernorm.weight,
            gate=gate, up=up, down=down,
            q_norm=None if q_norm is None else q_norm.weight,
            k_norm=None if k_norm is None else k_norm.weight,
            epsilon=module.input_layernorm.variance_epsilon,
            head_size=head_size(base.config),
        )  # fmt: skip
