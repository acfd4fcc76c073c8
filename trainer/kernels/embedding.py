"""Rows of an embedding table, which may lie in pinned host memory: a GPU reads just these."""

import torch

from trainer.kernels._triton import jit, next_power_of_2, tl


def reference(ids_M: torch.Tensor, table_VH: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[M, H] on the device of `ids_M`."""
    return table_VH[ids_M.to(table_VH.device)].to(ids_M.device, dtype)


def fused(ids_M: torch.Tensor, table_VH: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    columns = table_VH.shape[1]
    out = torch.empty(len(ids_M), columns, dtype=dtype, device=ids_M.device)
    block = next_power_of_2(columns)
    _gather[(len(ids_M),)](ids_M, table_VH, out, columns, BLOCK=block, num_warps=4)
    return out


@jit
def _gather(ids, table, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    value = tl.load(table + tl.load(ids + row) * columns + column, mask=inside)
    tl.store(out + row * columns + column, value.to(out.dtype.element_ty), mask=inside)
