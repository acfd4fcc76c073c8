"""Fused operations, each beside its plain torch reference; `choose` is where one is picked."""

from dataclasses import dataclass
from typing import Any

import torch

from trainer.kernels import (
    attention,
    causal_convolution,
    cross_entropy,
    decode_attention,
    delta_decays,
    dequantise,
    dropout,
    embedding,
    geglu,
    rms_norm,
    rope,
    swiglu,
    triangular_inverse,
)
from trainer.kernels._triton import triton


@dataclass(frozen=True)
class Kernels:
    """One set of operations: all plain, or all fused."""

    name: str
    embedding: Any
    dequantise: Any
    rms_norm: Any
    rms_norm_backward: Any
    rope: Any
    swiglu: Any
    swiglu_backward: Any
    geglu: Any
    geglu_backward: Any
    cross_entropy: Any
    dropout: Any
    dropout_add: Any
    decode_attention: Any
    product_4bit: Any
    convolution: Any
    convolution_backward: Any
    triangular_inverse: Any
    delta_decays: Any
    delta_decays_backward: Any


# For each field of `Kernels` its plain torch reference and its fused kernel.
OPERATIONS: dict[str, tuple[Any, Any]] = {
    "embedding": (embedding.reference, embedding.fused),
    "dequantise": (dequantise.reference, dequantise.fused),
    "rms_norm": (rms_norm.reference, rms_norm.fused),
    "rms_norm_backward": (rms_norm.reference_backward, rms_norm.fused_backward),
    "rope": (rope.reference, rope.fused),
    "swiglu": (swiglu.reference, swiglu.fused),
    "swiglu_backward": (swiglu.reference_backward, swiglu.fused_backward),
    "geglu": (geglu.reference, geglu.fused),
    "geglu_backward": (geglu.reference_backward, geglu.fused_backward),
    "cross_entropy": (cross_entropy.reference, cross_entropy.fused),
    "dropout": (dropout.reference, dropout.fused),
    "dropout_add": (dropout.reference_add, dropout.fused_add),
    "decode_attention": (decode_attention.reference, decode_attention.fused),
    "product_4bit": (dequantise.reference_product, dequantise.fused_product),
    "convolution": (causal_convolution.reference, causal_convolution.fused),
    "convolution_backward": (
        causal_convolution.reference_backward,
        causal_convolution.fused_backward,
    ),
    "triangular_inverse": (triangular_inverse.reference, triangular_inverse.fused),
    "delta_decays": (delta_decays.reference, delta_decays.fused),
    "delta_decays_backward": (delta_decays.reference_backward, delta_decays.fused_backward),
}
PLAIN = Kernels("plain torch", **{name: plain for name, (plain, _) in OPERATIONS.items()})
FUSED = Kernels("Triton", **{name: fused for name, (_, fused) in OPERATIONS.items()})


def choose(device_type: str) -> Kernels:
    """Fused ones on a GPU where Triton is installed, plain ones elsewhere."""
    return FUSED if device_type == "cuda" and triton is not None else PLAIN


def choose_attention(device: torch.device, row_tokens: int) -> attention.Attention:
    """For rows of so many tokens: cuDNN's where it is faster and not switched off in torch."""
    packed = choose_packed_attention(device)
    if not isinstance(packed, attention.Flash):
        return packed
    if torch.cuda.get_device_capability(device) < (9, 0):
        return packed
    return attention.Cudnn(row_tokens) if torch.backends.cuda.cudnn_sdp_enabled() else packed


def choose_packed_attention(device: torch.device) -> attention.Attention:
    """For documents of any lengths: flash attention where it runs and is not switched off in
    torch, else the next best."""
    if device.type == "cpu":
        return attention.Cpu()
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0) or not torch.backends.cuda.flash_sdp_enabled():
        return attention.MemoryEfficient()
    return attention.Flash()
