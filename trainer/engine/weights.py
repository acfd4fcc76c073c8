"""The tensors of a decoder, taken out of a peft model: linear layers with adapters, layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trainer.kernels.dequantise import Nf4
from trainer.planner.model_shape import head_size


@dataclass
class Linear:
    """A frozen linear layer and, where it has one, its adapter: W + scale B A."""

    weight: Nf4
    bias: torch.Tensor | None
    lora_a: torch.nn.Parameter | None = None  # [r, in]
    lora_b: torch.nn.Parameter | None = None  # [out, r]
    scale: float = 0.0
    dropout: float = 0.0
    salt: int = 0
    unpacked: torch.Tensor | None = None  # the matrix itself, where memory is no question

    @classmethod
    def of(cls, module: Any, salt: int) -> "Linear":
        """From bitsandbytes' Linear4bit, bare or inside peft's. ValueError for anything else."""
        base = getattr(module, "base_layer", module)
        if not hasattr(getattr(base, "weight", None), "quant_state"):
            raise ValueError(f"{type(base).__name__} is no 4-bit layer")
        linear = cls(Nf4.of(base.weight), base.bias)
        if base is not module:
            (name,) = module.active_adapters
            linear.lora_a = module.lora_A[name].weight
            linear.lora_b = module.lora_B[name].weight
            linear.scale = module.scaling[name]
            linear.dropout = getattr(module.lora_dropout[name], "p", 0.0)
            linear.salt = salt
        return linear

    def trained(self) -> list[torch.nn.Parameter]:
        return [p for p in (self.lora_a, self.lora_b) if p is not None]


@dataclass
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


def layers_of(model: Any) -> Iterator[Layer]:
    """Of a PeftModel around a decoder of a known family."""
    base = model.get_base_model()
    for number, module in enumerate(base.model.layers):
        attention, mlp = module.self_attn, module.mlp
        modules = (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            mlp.gate_proj, mlp.up_proj, mlp.down_proj,
        )  # fmt: skip
        q, k, v, o, gate, up, down = (
            Linear.of(m, salt=number * len(modules) + i) for i, m in enumerate(modules)
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
