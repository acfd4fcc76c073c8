"""NF4 with double quantisation back to 16 or 32 bits: one launch for a weight matrix.

A byte holds two 4-bit indices into the table of NF4 values, the high half first; 64 of them share
a scale, which is itself an 8-bit index into a table, times one float for each 256 scales, plus an
offset (Dettmers et al. 2023, section 3).
"""

from dataclasses import dataclass
from typing import Any

import torch

from trainer.kernels._triton import cdiv, jit, tl
from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

ROWS = 64  # scales in one program: the fastest of 8 to 128 on an H200, with 4 warps


@dataclass(frozen=True)
class Nf4:
    """A quantised matrix of `shape` (out, in). `packed` is uint8 [out * in / 2]."""

    packed: torch.Tensor
    shape: tuple[int, int]
    table: torch.Tensor  # float32 [16]
    scales: torch.Tensor  # uint8 [out * in / 64]
    scale_table: torch.Tensor  # float32 [256]
    scale_absmax: torch.Tensor  # float32 [scales / 256]
    offset: torch.Tensor  # float32 []
    state: Any  # bitsandbytes' own description, for the reference

    @classmethod
    def of(cls, weight: Any) -> "Nf4":
        """From a `bitsandbytes.nn.Params4bit`. ValueError for another kind of quantisation."""
        state = weight.quant_state
        if not state.nested or state.quant_type != "nf4" or state.blocksize != BLOCK_VALUES:
            raise ValueError(f"not NF4 with double quantisation in blocks of {BLOCK_VALUES}")
        if state.state2.blocksize != BLOCK_SCALES or weight.numel() % (BLOCK_VALUES // 2):
            raise ValueError(
                f"scales are not quantised in blocks of {BLOCK_SCALES}, or a block is not full"
            )
        return cls(
            packed=weight.data.view(torch.uint8).flatten(),
            shape=tuple(state.shape),
            table=state.code.float(),
            scales=state.absmax,
            scale_table=state.state2.code.float(),
            scale_absmax=state.state2.absmax,
            offset=state.offset,
            state=state,
        )


def reference(weight: Nf4, out: torch.Tensor) -> torch.Tensor:
    """The matrix [out, in] in the dtype of `out`, which need not be written to."""
    from bitsandbytes.functional import dequantize_4bit

    matrix: torch.Tensor = dequantize_4bit(weight.packed.view(-1, 1), weight.state)
    return matrix.to(out.dtype)


def reference_product(weight: Nf4, x_MI: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W' [M, out], plus `bias` where there is one."""
    matrix = reference(weight, torch.empty(0, dtype=x_MI.dtype))
    return torch.nn.functional.linear(x_MI, matrix, bias)


def fused_product(weight: Nf4, x_MI: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The same by bitsandbytes' own kernel, which never writes the matrix."""
    out: torch.Tensor = torch.ops.bitsandbytes.gemm_4bit(
        x_MI,
        weight.packed.view(-1, 1),
        weight.shape,
        weight.scale_absmax,
        BLOCK_VALUES,
        "nf4",
        bias,
        weight.scales,
        weight.scale_table,
        weight.offset,
    )
    return out


def fused(weight: Nf4, out: torch.Tensor) -> torch.Tensor:
    """The same into `out` [out, in]."""
    count = weight.scales.numel()
    tensors = weight.packed, weight.scales, weight.scale_table, weight.scale_absmax, weight.offset
    return _launch(*tensors, weight.table, out, count, count)


def fused_matrices(
    packed_XB: torch.Tensor,
    scales_XS: torch.Tensor,
    scale_table: torch.Tensor,
    scale_absmax_XG: torch.Tensor,
    offset_X: torch.Tensor,
    table: torch.Tensor,
    out_XOI: torch.Tensor,
) -> torch.Tensor:
    """X matrices at once into `out_XOI`, each quantised for itself; S scales of each fill whole
    groups of BLOCK_SCALES, of which those that its values have are used."""
    used = out_XOI[0].numel() // BLOCK_VALUES
    tensors = packed_XB, scales_XS, scale_table, scale_absmax_XG, offset_X
    return _launch(*tensors, table, out_XOI, used, scales_XS.shape[1])


def _launch(
    packed: torch.Tensor,
    scales: torch.Tensor,
    scale_table: torch.Tensor,
    scale_absmax: torch.Tensor,
    offset: torch.Tensor,
    table: torch.Tensor,
    out: torch.Tensor,
    used: int,
    stored: int,
) -> torch.Tensor:
    count = used * offset.numel()
    _dequantise[(cdiv(count, ROWS),)](
        packed,
        scales,
        scale_table,
        scale_absmax,
        offset,
        table,
        out,
        count,
        used,
        stored,
        ROWS=ROWS,
        BYTES=BLOCK_VALUES // 2,
        SCALES=BLOCK_SCALES,
        num_warps=4,
        # A fused multiply-add rounds once where bitsandbytes rounds twice.
        enable_fp_fusion=False,
    )
    return out


@jit
def _dequantise(
    packed,
    scales,
    scale_table,
    scale_absmax,
    offset,
    table,
    out,
    count,
    used,
    stored,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
    SCALES: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = row < count
    matrix = row // used
    of_scale = matrix * (stored - used) + row  # behind those that no value has
    index = tl.load(scales + of_scale, mask=valid, other=0).to(tl.int32)
    absmax = tl.load(scale_absmax + of_scale // SCALES, mask=valid, other=0.0)
    beside = tl.load(offset + matrix, mask=valid, other=0.0)
    scale = tl.load(scale_table + index) * absmax + beside
    at = row.to(tl.int64)[:, None] * BYTES + tl.arange(0, BYTES)[None, :]
    pair = tl.load(packed + at, mask=valid[:, None], other=0).to(tl.int32)
    high = tl.load(table + (pair >> 4)) * scale[:, None]
    low = tl.load(table + (pair & 15)) * scale[:, None]
    values = tl.reshape(tl.join(high, low), (ROWS, 2 * BYTES))
    to = row.to(tl.int64)[:, None] * (2 * BYTES) + tl.arange(0, 2 * BYTES)[None, :]
    tl.store(out + to, values.to(out.dtype.element_ty), mask=valid[:, None])
