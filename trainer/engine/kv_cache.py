"""Keys and values of the tokens that were read, at fixed addresses, and attention that fills it."""

from dataclasses import dataclass

import torch

from trainer.engine.weights import DecoderWeights
from trainer.kernels import Kernels
from trainer.kernels.attention import Attended, Attention, Documents
from trainer.kernels.decode_attention import Rows


@dataclass(frozen=True)
class Prompts(Documents):
    """Documents whose keys and values are kept: that of each token at its place, int64 [M], of the
    cache's rows one after the other."""

    places_M: torch.Tensor


@dataclass(frozen=True)
class Step(Documents):
    """One new token in each of the first rows of the cache."""

    rows: Rows


class KeyValueCache:
    """Room for `length` tokens in each of `rows` rows."""

    def __init__(
        self,
        weights: DecoderWeights,
        rows: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rows, self.length = rows, length
        layer = weights.layers[0]
        heads = layer.qkv_widths[1] // layer.head_size
        shape = (len(weights.layers), 2, rows, length, heads, layer.head_size)
        self._all = torch.zeros(shape, dtype=dtype, device=device)

    def layer(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one layer, [R, L, K, D] each."""
        return self._all[number, 0], self._all[number, 1]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` of a row over those of another."""
        self._all[:, :, target, :tokens] = self._all[:, :, source, :tokens]


@dataclass(frozen=True)
class CachingAttention:
    """The attention of one layer: prompts by `packed`, the tokens after them by the cache."""

    keys: torch.Tensor
    values: torch.Tensor
    kernels: Kernels
    packed: Attention

    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended:
        if isinstance(where, Step):
            out = self.kernels.decode_attention(
                q_MHD, k_MKD, v_MKD, self.keys, self.values, where.rows
            )
            return Attended(out, out, ())
        assert isinstance(where, Prompts)
        for cache, new in ((self.keys, k_MKD), (self.values, v_MKD)):
            cache.flatten(0, 1).index_copy_(0, where.places_M, new)
        return self.packed.forward(
            q_MHD.contiguous(), k_MKD.contiguous(), v_MKD.contiguous(), where
        )

    def backward(
        self,
        grad_MHD: torch.Tensor,
        q_MHD: torch.Tensor,
        k_MKD: torch.Tensor,
        v_MKD: torch.Tensor,
        seen: Attended,
        where: Documents,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raise NotImplementedError("what is generated is not trained")
