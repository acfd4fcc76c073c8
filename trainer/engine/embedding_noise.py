"""Noise on the embeddings of what is trained: NEFTune (Jain et al. 2023)."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch


def add_noise(x_MH: torch.Tensor, starts: torch.Tensor, alpha: float) -> torch.Tensor:
    """`x_MH` with uniform noise of at most alpha / sqrt(L H), L the length of a token's document.

    `starts` is where documents begin, int [documents + 1], from 0 to M; those at the end may be
    empty. Its shapes do not depend on what it holds, so that a CUDA graph can replay it.
    """
    tokens = torch.arange(len(x_MH), device=x_MH.device, dtype=starts.dtype)
    document = torch.searchsorted(starts, tokens, right=True) - 1
    length_M = starts.diff()[document]
    most_M1 = (alpha / math.sqrt(x_MH.shape[1]) * length_M.float().rsqrt()).to(x_MH.dtype)[:, None]
    return torch.rand_like(x_MH).mul_(2).sub_(1).mul_(most_M1).add_(x_MH)


@contextlib.contextmanager
def noisy_embedding(model: Any, position_ids_BT: torch.Tensor, alpha: float) -> Iterator[None]:
    """The same in a model of transformers, for a forward pass over documents at these positions."""
    starts = (position_ids_BT.flatten() == 0).nonzero().flatten()
    starts = torch.nn.functional.pad(starts, (0, 1), value=position_ids_BT.numel())

    def noisy(_module: Any, _inputs: Any, x_BTH: torch.Tensor) -> torch.Tensor:
        return add_noise(x_BTH.flatten(0, 1), starts, alpha).view_as(x_BTH)

    hook = model.get_input_embeddings().register_forward_hook(noisy)
    try:
        yield
    finally:
        hook.remove()
