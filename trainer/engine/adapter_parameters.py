"""The adapter's tensors as an optimizer takes them."""

from collections.abc import Iterable, Mapping

import torch

from trainer.engine.weights import Linear, LoraKey

# 8-bit AdamW works in blocks of so many values, and treats smaller tensors differently.
OPTIMIZER_BLOCK, OPTIMIZER_LEAST = 256, 4096


class AdapterParameters:
    """`parameters` are what is trained: the adapter, most of it as one.

    Its tensors become views of a single one, so that an optimizer starts one kernel instead of
    hundreds; only those join that make no difference to the optimizer by it.
    """

    def __init__(self, linears: Iterable[Linear]) -> None:
        self._tensors = tensors_of(linears)
        self._joined = [key for key, tensor in self._tensors.items() if _may_join(tensor)]
        self._apart = [key for key, tensor in self._tensors.items() if not _may_join(tensor)]
        joined = _join([self._tensors[key] for key in self._joined])
        self.parameters = [*joined, *(self._tensors[key] for key in self._apart)]

    def copies(self, dtype: torch.dtype) -> dict[LoraKey, torch.Tensor]:
        """The adapter's tensors in the dtype that is computed in."""
        return copies_of(self._tensors, dtype)

    def gradients(self, of_each: Mapping[LoraKey, torch.Tensor]) -> list[torch.Tensor]:
        """Those of `parameters`, from those of the adapter's tensors."""
        joined = [of_each[key].flatten() for key in self._joined]
        apart = [of_each[key] for key in self._apart]
        return [torch.cat(joined), *apart] if joined else apart


def tensors_of(linears: Iterable[Linear]) -> dict[LoraKey, torch.nn.Parameter]:
    """The adapter's tensors, in the order of the layers."""
    tensors = {}
    for linear in linears:
        if linear.lora is not None:
            tensors[linear.a_key] = linear.lora.a
            tensors[linear.b_key] = linear.lora.b
    return tensors


def copies_of(
    tensors: Mapping[LoraKey, torch.nn.Parameter], dtype: torch.dtype
) -> dict[LoraKey, torch.Tensor]:
    """The same in the dtype that is computed in."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors.values()]
    if copies:
        torch._foreach_copy_(copies, [tensor.detach() for tensor in tensors.values()])
    return dict(zip(tensors, copies, strict=True))


def _may_join(tensor: torch.Tensor) -> bool:
    return tensor.numel() >= OPTIMIZER_LEAST and tensor.numel() % OPTIMIZER_BLOCK == 0


def _join(tensors: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """One parameter, of which all `tensors` are views from now on; none where there are none."""
    if not tensors:
        return []
    one = torch.nn.Parameter(torch.cat([tensor.detach().flatten() for tensor in tensors]))
    views = one.data.split([tensor.numel() for tensor in tensors])
    for tensor, view in zip(tensors, views, strict=True):
        tensor.data = view.view(tensor.shape)
    return [one]
