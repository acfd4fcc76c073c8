"""The tensors of a decoder, taken out of a peft model: linear layers with adapters, layers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainer.engine.delta_net import DeltaNet
from trainer.engine.families import FAMILIES, Family
from trainer.kernels.dequantise import Nf4
from trainer.models.nf4_experts import NF4Experts
from trainer.models.residual_stream import is_wide
from trainer.planner.model_shape import attention_heads, head_size, key_value_heads

LoraKey = tuple[int, str]
"""Names one tensor of the adapter: the number of its linear layer, "A" or "B"."""

Rotation = tuple[torch.Tensor, torch.Tensor]
"""cos and sin of the positions, [M, D] each."""


@dataclass(frozen=True)
class Lora:
    """The adapter of a linear layer, which adds scale B A drop(x)."""

    a: torch.nn.Parameter  # [r, in]
    b: torch.nn.Parameter  # [out, r]
    scale: float
    dropout: float

    @classmethod
    def of(cls, module: Any) -> "Lora | None":
        """From one of peft's LoRA layers; None where it is for other adapters."""
        (name,) = module.active_adapters
        if name not in module.lora_A:
            return None
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
class Mixture:
    """A router [experts, H] and its experts, all of them frozen. A token's weights are normalised
    to a sum of one, or left as the softmax over all experts gave them."""

    router: torch.Tensor
    gate_up: NF4Experts
    down: NF4Experts
    experts_of_a_token: int
    normalises: bool


@dataclass(frozen=True)
class Layer:
    """One decoder layer. A norm that its family does not have is None; with a `mixture` it has no
    `gate_up` and no `down`."""

    attention_norm: torch.Tensor | None
    qkv: tuple[Linear, ...]  # one of them where it gives all three
    o: Linear
    attention_post_norm: torch.Tensor | None
    mlp_norm: torch.Tensor | None
    gate_up: tuple[Linear, ...]  # one of them where it gives both
    down: Linear | None
    mixture: Mixture | None
    mlp_post_norm: torch.Tensor | None
    q_norm: torch.Tensor | None  # over a head, or over all of them
    k_norm: torch.Tensor | None
    epsilon: float
    head_size: int
    delta: DeltaNet | None  # mixes tokens in the place of attention
    gates_attention: bool  # each head of q has a gate of its output behind it
    qkv_widths: tuple[int, ...]
    activation: str
    rope: str | None  # which of the rotations of `Batch`; None where it rotates nothing
    head_order: torch.Tensor | None  # of q and k, in which halves of a head are rotated
    query_scale: float  # beside the usual one, of the root of the head's size
    residual_scale: float  # of what attention and feed-forward network add

    def linears(self) -> tuple[Linear, ...]:
        down = () if self.down is None else (self.down,)
        return *self.qkv, self.o, *self.gate_up, *down

    def without_adapter(self) -> "Layer":
        """The same with the frozen layers alone."""
        qkv, gate_up = (
            tuple(replace(linear, lora=None) for linear in linears)
            for linears in (self.qkv, self.gate_up)
        )
        o, down = replace(self.o, lora=None), self.down and replace(self.down, lora=None)
        return replace(self, qkv=qkv, o=o, gate_up=gate_up, down=down)


@dataclass(frozen=True)
class DecoderWeights:
    """All of a decoder. `embedding` [V, H] and `head` [V, H] may be one tensor."""

    embedding: torch.nn.Parameter
    embedding_scale: float
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    epsilon: float
    head: torch.nn.Parameter
    logit_scale: float
    rotary: Any  # transformers' module: cos and sin of positions
    head_size: int
    is_wide: bool  # its residual stream leaves the range of fp16

    @classmethod
    def of(cls, model: Any) -> "DecoderWeights":
        """Of a decoder of a known family, bare or inside a PeftModel."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        decoder, text = base.get_decoder(), base.config.get_text_config()
        family = FAMILIES[type(base).__name__]
        embedding = base.get_input_embeddings()
        return cls(
            embedding=embedding.weight,
            embedding_scale=_embedding_scale(embedding, decoder),
            layers=tuple(_layers(decoder, text, family)),
            norm=_norm_weight(decoder.norm, family),
            epsilon=_epsilon(decoder.norm),
            head=base.get_output_embeddings().weight,
            logit_scale=1 / text.logits_scaling if family.divides_logits else 1.0,
            rotary=decoder.rotary_emb,
            head_size=head_size(text),
            is_wide=is_wide(base.config, "fp16"),
        )

    def without_adapter(self) -> "DecoderWeights":
        return replace(self, layers=tuple(layer.without_adapter() for layer in self.layers))

    def linears(self) -> list[Linear]:
        return [linear for layer in self.layers for linear in layer.linears()]

    def rotations(self, like: torch.Tensor, positions_BT: torch.Tensor) -> dict[str, Rotation]:
        """cos and sin [M, D] for each kind of layer that rotates, in the dtype of `like`. What of a
        head is not rotated has an angle of 0."""
        row = positions_BT.reshape(1, -1)
        found = {}
        for kind in {layer.rope for layer in self.layers} - {None}:
            assert kind is not None
            cos, sin = self.rotary(like, row, *([kind] if kind else []))
            found[kind] = self._of_heads(cos[0], 1.0), self._of_heads(sin[0], 0.0)
        return found

    def _of_heads(self, values_MR: torch.Tensor, rest: float) -> torch.Tensor:
        half_MR, size = values_MR.chunk(2, dim=-1)[0], self.head_size // 2
        if half_MR.shape[-1] == size:
            return values_MR
        padded = torch.nn.functional.pad(half_MR, (0, size - half_MR.shape[-1]), value=rest)
        return torch.cat((padded, padded), dim=-1)


QKV = (("q_proj", "k_proj", "v_proj"), ("qkv_proj",))  # apart, fused
DELTA = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
GATE_UP = (("gate_proj", "up_proj"), ("gate_up_proj",))


def _layers(decoder: Any, text: Any, family: Family) -> Iterator[Layer]:
    head, first = head_size(text), 0
    q, kv = attention_heads(text) * head, key_value_heads(text) * head
    widths = 2 * q if family.gates_attention else q, kv, kv
    for module in decoder.layers:
        mlp = module.mlp
        attention = module.self_attn if hasattr(module, "self_attn") else module.linear_attn
        delta = _delta(attention) if hasattr(attention, "conv1d") else None
        mixture = _mixture(mlp) if hasattr(mlp, "experts") else None
        into, names = _linear_names(family, is_delta=delta is not None)
        modules = [getattr(attention, n) for n in (*into, *names[0])]
        modules += [getattr(mlp, n) for n in names[1]] if mixture is None else []
        linears = [Linear.of(m, first + i) for i, m in enumerate(modules)]
        first += len(modules)
        norms = [
            None if name is None else _norm_weight(getattr(module, name), family)
            for name in (
                family.attention_norm,
                family.attention_post_norm,
                family.mlp_norm,
                family.mlp_post_norm,
            )
        ]
        q_norm, k_norm = (
            _norm_weight(getattr(attention, name), family) if hasattr(attention, name) else None
            for name in ("q_norm", "k_norm")
        )
        yield Layer(
            attention_norm=norms[0],
            qkv=tuple(linears[: len(into)]),
            o=linears[len(into)],
            attention_post_norm=norms[1],
            mlp_norm=norms[2],
            gate_up=tuple(linears[len(into) + 1 : -1]),
            down=linears[-1] if mixture is None else None,
            mixture=mixture,
            mlp_post_norm=norms[3],
            q_norm=q_norm,
            k_norm=k_norm,
            epsilon=_epsilon(decoder.norm),
            head_size=head,
            delta=delta,
            gates_attention=family.gates_attention,
            qkv_widths=widths if delta is None else delta.widths,
            activation=family.activation,
            rope=(rope := None if delta else _rope(attention, decoder.rotary_emb)),
            head_order=_head_order(rope, decoder.rotary_emb, head, family),
            query_scale=1.0 if delta else _exact(attention.scaling * head**0.5),
            residual_scale=getattr(module, "residual_multiplier", 1.0),
        )


def _linear_names(
    family: Family, *, is_delta: bool
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Of what mixes tokens: into it, out of it; and of the feed-forward network."""
    mlp = (*GATE_UP[family.fused_mlp], "down_proj")
    if is_delta:
        return DELTA, (("out_proj",), mlp)
    return QKV[family.fused_attention], (("o_proj",), mlp)


def _delta(mixer: Any) -> DeltaNet:
    return DeltaNet(
        convolution_CW=mixer.conv1d.weight[:, 0],
        log_decay_V=mixer.A_log,
        bias_V=mixer.dt_bias,
        norm_E=mixer.norm.weight,
        epsilon=_epsilon(mixer.norm),
        key_heads=mixer.num_k_heads,
        key_size=mixer.head_k_dim,
    )


def _mixture(mlp: Any) -> Mixture:
    """Raises ValueError for experts that are not in NF4."""
    experts, router = mlp.experts, mlp.gate
    gate_up, down = experts.gate_up_proj, experts.down_proj
    if not isinstance(gate_up, NF4Experts) or not isinstance(down, NF4Experts):
        raise ValueError("its experts are not in NF4")
    return Mixture(router.weight, gate_up, down, router.top_k, router.norm_topk_prob)


def _exact(scale: float) -> float:
    """1 where it is that but for rounding: then nothing is multiplied."""
    return 1.0 if math.isclose(scale, 1) else scale


def _rope(attention: Any, rotary: Any) -> str | None:
    """By the layer's type, where there is a table for each of them."""
    if not getattr(attention, "use_rope", True):
        return None
    if not hasattr(rotary, "layer_types"):
        return ""
    return str(getattr(attention, "layer_type", None) or attention.attention_type)


def rotated_values(rotary: Any) -> dict[str, int]:
    """Of a head, by the kind of layer: transformers' module has a frequency for two of them."""
    tables = {n: b for n, b in rotary.named_buffers() if n.endswith("inv_freq")}
    kinds = {n.removesuffix("inv_freq").removesuffix("_"): 2 * len(b) for n, b in tables.items()}
    return {kind: size for kind, size in kinds.items() if not kind.endswith("original")}


def _head_order(kind: str | None, rotary: Any, size: int, family: Family) -> torch.Tensor | None:
    """The order of a head's values in which its halves are what is rotated, with those behind them
    that are not; None where that is theirs. Attention gives the same for any order of q and k."""
    rotated = size if kind is None else rotated_values(rotary)[kind]
    if rotated == size and not family.neighbours:
        return None
    pairs, rest = torch.arange(rotated), torch.arange(rotated, size)
    first, second = (pairs[0::2], pairs[1::2]) if family.neighbours else pairs.chunk(2)
    (before, behind) = rest.chunk(2) if len(rest) else (rest, rest)
    on = next(rotary.buffers()).device
    return torch.cat((first, before, second, behind)).to(on)


def _norm_weight(norm: Any, family: Family) -> torch.Tensor:
    weight: torch.Tensor = norm.weight
    return weight.float() + family.norm_offset if family.norm_offset else weight


def _epsilon(norm: Any) -> float:
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def _embedding_scale(embedding: Any, decoder: Any) -> float:
    """As it is rounded to the table's dtype: Gemma's is a buffer, Granite's a number."""
    scale: Any = getattr(embedding, "embed_scale", None)
    if isinstance(scale, torch.Tensor):
        return float(scale.to(embedding.weight.dtype))
    return float(scale or getattr(decoder, "embedding_multiplier", 1.0))
