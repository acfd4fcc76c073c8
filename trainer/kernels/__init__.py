"""Fused operations, each beside its plain torch reference; `choose` is where one is picked."""

from dataclasses import dataclass
from typing import Any

import torch

from trainer.kernels import (
    attention,
    cross_entropy,
    dequantise,
    dropout,
    embedding,
    rms_norm,
    rope,
    swiglu,
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
    cross_entropy: Any
    dropout: Any
    dropout_add: Any


PLAIN = Kernels(
    "plain torch",
    embedding.reference,
    dequantise.reference,
    rms_norm.reference,
    rms_norm.reference_backward,
    rope.reference,
    swiglu.reference,
    swiglu.reference_backward,
    cross_entropy.reference,
    dropout.reference,
    dropout.reference_add,
)
FUSED = Kernels(
    "Triton",
    embedding.fused,
    dequantise.fused,
    rms_norm.fused,
    rms_norm.fused_backward,
    rope.fused,
    swiglu.fused,
    swiglu.fused_backward,
    cross_entropy.fused,
    dropout.fused,
    dropout.fused_add,
)


def choose(device_type: str) -> Kernels:
    """Fused ones on a GPU where Triton is installed, plain ones elsewhere."""
    return FUSED if device_type == "cuda" and triton is not None else PLAIN


def choose_attention(device: torch.device, row_tokens: int) -> attention.Attention:
    """Flash attention where it runs and is not switched off in torch, else the next best."""
    if device.type == "cpu":
        return attention.Cpu()
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0) or not torch.backends.cuda.flash_sdp_enabled():
        return attention.MemoryEfficient()
    if capability < (9, 0) or not torch.backends.cuda.cudnn_sdp_enabled():
        return attention.Flash()
    return attention.Cudnn(row_tokens)
