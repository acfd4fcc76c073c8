"""Causal attention inside each document of a packed row, without a dense mask on a GPU.

torch's own kernels: flash attention from compute capability 8.0 up, the memory-efficient one below
(a T4), both with the documents' bounds; cuDNN's from 9.0 up where every row is one document; on a
CPU torch's flash kernel, document by document.

On a GPU the sums of a backward pass are taken in a fixed order where that is cheap, so that a run
can be repeated to the bit: for documents of at most `EXACT_TOKENS`. Measured on an H200, forward
and backward together: 1 % of a step at 512 tokens, but 1.6 times (flash) to 3.4 times (memory
efficient) the backward pass at 8,192.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch

aten = torch.ops.aten
EXACT_TOKENS = 2048


@dataclass(frozen=True)
class Documents:
    """Where the documents of M tokens in a row begin: int32 [documents + 1], from 0 to M.

    Where a GPU is given more keys than queries, `keys` say where those of each document begin; its
    queries stand at its end.
    """

    starts: torch.Tensor
    longest: int
    keys: "Documents | None" = field(default=None, kw_only=True)


@dataclass
class Attended:
    """What the backward pass needs; `extra` are the kernel's own tensors."""

    out_MHD: torch.Tensor
    logsumexp: torch.Tensor
    extra: tuple[Any, ...]


class Attention(Protocol):
    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended: ...

    def backward(
        self,
        grad_MHD: torch.Tensor,
        q_MHD: torch.Tensor,
        k_MKD: torch.Tensor,
        v_MKD: torch.Tensor,
        seen: Attended,
        where: Documents,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


class Flash:
    """FlashAttention 2 (Dao 2023): fp16 or bf16, from compute capability 8.0 up."""

    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended:
        keys = where.keys or where
        out, lse, *extra = aten._flash_attention_forward(
            q_MHD, k_MKD, v_MKD, where.starts, keys.starts, where.longest, keys.longest,
            0.0, True, False,
        )  # fmt: skip
        return Attended(out, lse, tuple(extra[:2]))

    def backward(
        self,
        grad_MHD: torch.Tensor,
        q_MHD: torch.Tensor,
        k_MKD: torch.Tensor,
        v_MKD: torch.Tensor,
        seen: Attended,
        where: Documents,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with _in_order(where):
            dq, dk, dv = aten._flash_attention_backward(
                grad_MHD, q_MHD, k_MKD, v_MKD, seen.out_MHD, seen.logsumexp,
                where.starts, where.starts, where.longest, where.longest, 0.0, True, *seen.extra,
            )  # fmt: skip
        return dq, dk, dv


class MemoryEfficient:
    """The memory-efficient kernel (Rabe & Staats 2021; xFormers): every GPU, equal head counts."""

    CAUSAL, CAUSAL_AT_THE_END = 1, 2  # from the top left, from the bottom right

    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended:
        group, keys = q_MHD.shape[1] // k_MKD.shape[1], where.keys or where
        causal = self.CAUSAL if where.keys is None else self.CAUSAL_AT_THE_END
        out, lse, *extra = aten._efficient_attention_forward(
            q_MHD[None], _repeated(k_MKD, group)[None], _repeated(v_MKD, group)[None], None,
            where.starts, keys.starts, where.longest, keys.longest,
            0.0, causal, True,
        )  # fmt: skip
        return Attended(out[0], lse, tuple(extra[:2]))

    def backward(
        self,
        grad_MHD: torch.Tensor,
        q_MHD: torch.Tensor,
        k_MKD: torch.Tensor,
        v_MKD: torch.Tensor,
        seen: Attended,
        where: Documents,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        group = q_MHD.shape[1] // k_MKD.shape[1]
        with _in_order(where):
            dq, dk, dv, _ = aten._efficient_attention_backward(
                grad_MHD[None], q_MHD[None], _repeated(k_MKD, group)[None],
                _repeated(v_MKD, group)[None], None, seen.out_MHD[None],
                where.starts, where.starts, where.longest, where.longest, seen.logsumexp,
                0.0, *seen.extra, self.CAUSAL, False,
            )  # fmt: skip
        return dq[0], _summed(dk[0], group), _summed(dv[0], group)


class Cudnn:
    """cuDNN's kernel, twice as fast on Hopper, for rows that are one document each; else flash."""

    def __init__(self, tokens_in_a_row: int) -> None:
        self._row = tokens_in_a_row
        self._packed = Flash()

    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended:
        if not self._is_whole(q_MHD, where):
            return self._packed.forward(q_MHD, k_MKD, v_MKD, where)
        group = q_MHD.shape[1] // k_MKD.shape[1]
        heads = (
            _heads(x, self._row) for x in (q_MHD, _repeated(k_MKD, group), _repeated(v_MKD, group))
        )
        out, lse, cum_q, cum_k, max_q, max_k, *random, _ = aten._scaled_dot_product_cudnn_attention(
            *heads, None, True, 0.0, True, False
        )
        return Attended(_tokens(out), lse, (*random, None, cum_q, cum_k, max_q, max_k))

    def backward(
        self,
        grad_MHD: torch.Tensor,
        q_MHD: torch.Tensor,
        k_MKD: torch.Tensor,
        v_MKD: torch.Tensor,
        seen: Attended,
        where: Documents,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if not self._is_whole(q_MHD, where):
            return self._packed.backward(grad_MHD, q_MHD, k_MKD, v_MKD, seen, where)
        group = q_MHD.shape[1] // k_MKD.shape[1]
        given = (grad_MHD, q_MHD, _repeated(k_MKD, group), _repeated(v_MKD, group), seen.out_MHD)
        grad, q, k, v, out = (_heads(x, self._row) for x in given)
        dq, dk, dv = aten._scaled_dot_product_cudnn_attention_backward(
            grad, q, k, v, out, seen.logsumexp, *seen.extra, 0.0, True
        )
        return _tokens(dq), _summed(_tokens(dk), group), _summed(_tokens(dv), group)

    def _is_whole(self, q_MHD: torch.Tensor, where: Documents) -> bool:
        """Only by shapes, which the CPU knows: as many documents as rows, one as long as a row."""
        rows = len(q_MHD) // self._row
        return where.starts.numel() - 1 == rows and where.longest == self._row


class Cpu:
    """torch's flash kernel for CPUs, one document at a time: no mask, and no work outside them."""

    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended:
        out_MHD, seen = torch.empty_like(q_MHD), []
        for part in _parts(where):
            out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
                *self._heads(part, q_MHD, k_MKD, v_MKD), is_causal=True
            )
            out_MHD[part] = _tokens(out)
            seen.append((out, lse))
        return Attended(out_MHD, out_MHD, tuple(seen))

    def backward(
        self,
        grad_MHD: torch.Tensor,
        q_MHD: torch.Tensor,
        k_MKD: torch.Tensor,
        v_MKD: torch.Tensor,
        seen: Attended,
        where: Documents,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        group = q_MHD.shape[1] // k_MKD.shape[1]
        dq_MHD, dk_MKD, dv_MKD = (torch.empty_like(x) for x in (q_MHD, k_MKD, v_MKD))
        for part, (out, lse) in zip(_parts(where), seen.extra, strict=True):
            grad = _heads(grad_MHD[part], part.stop - part.start)
            dq, dk, dv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad, *self._heads(part, q_MHD, k_MKD, v_MKD), out, lse, 0.0, True
            )
            dq_MHD[part] = _tokens(dq)
            dk_MKD[part], dv_MKD[part] = _summed(_tokens(dk), group), _summed(_tokens(dv), group)
        return dq_MHD, dk_MKD, dv_MKD

    @staticmethod
    def _heads(
        part: slice, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor
    ) -> list[torch.Tensor]:
        """q, k and v of one document, each [1, H, T, D]."""
        group = q_MHD.shape[1] // k_MKD.shape[1]
        parts = q_MHD[part], _repeated(k_MKD[part], group), _repeated(v_MKD[part], group)
        return [_heads(x, part.stop - part.start) for x in parts]


def _parts(where: Documents) -> list[slice]:
    return [slice(*bounds) for bounds in pairwise(where.starts.tolist())]


@contextmanager
def _in_order(where: Documents) -> Iterator[None]:
    """Sums in a fixed order, so that the same step gives the same bits, where it costs little."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or where.longest <= EXACT_TOKENS)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _heads(x_MHD: torch.Tensor, row: int) -> torch.Tensor:
    """[B, H, T, D] of M = B T tokens, without a copy."""
    return x_MHD.view(-1, row, *x_MHD.shape[1:]).transpose(1, 2)


def _tokens(x_BHTD: torch.Tensor) -> torch.Tensor:
    return x_BHTD.transpose(1, 2).reshape(-1, x_BHTD.shape[1], x_BHTD.shape[3])


def _repeated(x_MKD: torch.Tensor, group: int) -> torch.Tensor:
    return x_MKD if group == 1 else x_MKD.repeat_interleave(group, dim=1)


def _summed(grad_MHD: torch.Tensor, group: int) -> torch.Tensor:
    """Gradient of `_repeated`."""
    if group == 1:
        return grad_MHD
    tokens, heads, size = grad_MHD.shape
    return grad_MHD.view(tokens, heads // group, group, size).sum(2)
