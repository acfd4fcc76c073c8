"""Keys and values of the tokens that were read, at fixed addresses, and attention that fills it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from trainer.engine.weights import DecoderWeights
from trainer.kernels import Kernels
from trainer.kernels.attention import Attended, Attention, Cpu, Documents
from trainer.kernels.decode_attention import Rows


@dataclass(frozen=True)
class Prompts(Documents):
    """Documents whose keys and values are kept: that of each token at its place, int64 [M], of the
    cache's rows one after the other."""

    places_M: torch.Tensor


@dataclass(frozen=True)
class Continued(Prompts):
    """The rest of prompts whose beginnings are in the cache: of each (its row, how many tokens the
    rest has, how many the beginning). `keys` are all tokens, whose places are `key_places`."""

    held: tuple[tuple[int, int, int], ...]
    key_places: torch.Tensor


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
        if isinstance(where, Continued):
            if isinstance(self.packed, Cpu):
                out = self._continue(q_MHD, where)
                return Attended(out, out, ())
            k_MKD, v_MKD = (c.flatten(0, 1)[where.key_places] for c in (self.keys, self.values))
        return self.packed.forward(
            q_MHD.contiguous(), k_MKD.contiguous(), v_MKD.contiguous(), where
        )

    def _continue(self, q_MHD: torch.Tensor, where: Continued) -> torch.Tensor:
        """One prompt after the other: each looks at its beginning and at itself."""
        out, first = torch.empty_like(q_MHD), 0
        for row, size, begun in where.held:
            total, part = begun + size, slice(first, first + size)
            keys, values = (c[row, :total].transpose(0, 1) for c in (self.keys, self.values))
            # Heads that share keys stand one below the other, as more tokens.
            q_KSD = q_MHD[part].transpose(0, 1).reshape(len(keys), -1, keys.shape[-1])
            seen = torch.ones(size, total, dtype=torch.bool, device=q_KSD.device).tril(begun)
            mask = seen.repeat(q_KSD.shape[1] // size, 1)
            made = F.scaled_dot_product_attention(
                q_KSD[None], keys[None], values[None], attn_mask=mask
            )
            out[part] = made.reshape(q_MHD.shape[1], size, -1).transpose(0, 1)
            first += size
        return out

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
