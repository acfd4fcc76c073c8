"""Linear layers of one input as a single product, their adapters' first halves among its rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.engine.weights import Linear, LoraKey


@dataclass(frozen=True)
class JoinedLinears:
    """Few rows of an input leave a GPU idle in a small product, and waiting between two."""

    weight: torch.Tensor  # [out of all + r of all, in]: matrices, then each adapter's A
    bias: torch.Tensor | None  # [out of all + r of all]
    b: torch.Tensor  # [r of all, out of all]: scale B' of each adapter at its own columns
    sizes: tuple[int, ...]  # out of each

    @classmethod
    def of(
        cls,
        linears: Sequence[Linear],
        adapter: Mapping[LoraKey, torch.Tensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> "JoinedLinears":
        """With matrices that are still to be written, to `rows`."""
        sizes = tuple(linear.weight.shape[0] for linear in linears)
        a = [adapter[linear.a_key] for linear in linears if linear.lora]
        out, ranks = sum(sizes), sum(map(len, a))
        weight = torch.zeros(out + ranks, linears[0].weight.shape[1], dtype=dtype, device=device)
        b = weight.new_zeros(ranks, out)
        bias = None
        if any(linear.bias is not None for linear in linears):
            bias = weight.new_zeros(out + ranks)
        column = row = 0
        for linear, size in zip(linears, sizes, strict=True):
            columns = slice(column, column + size)
            if bias is not None and linear.bias is not None:
                bias[columns] = linear.bias
            if linear.lora is not None:
                rank = len(adapter[linear.a_key])
                weight[out + row : out + row + rank] = adapter[linear.a_key]
                b[row : row + rank, columns] = adapter[linear.b_key].t() * linear.lora.scale
                row += rank
            column += size
        return cls(weight, bias, b, sizes)

    def rows(self) -> Iterator[torch.Tensor]:
        """Where the matrix [out, in] of each layer is."""
        return iter(self.weight[: sum(self.sizes)].split(self.sizes))

    def forward(self, x: torch.Tensor, *, tuned: bool) -> list[torch.Tensor]:
        """y [M, out] of each; without the adapters if not `tuned`."""
        out = sum(self.sizes)
        used = len(self.weight) if tuned else out
        weight = self.weight[:used].t()
        y = x @ weight if self.bias is None else torch.addmm(self.bias[:used], x, weight)
        if used > out:
            y[:, :out].addmm_(y[:, out:], self.b)
        return list(y[:, :out].split(self.sizes, 1))
