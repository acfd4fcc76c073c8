"""A tuned model that computes with the weights of its merged one, without one being written."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def compute_as_merged(model: Any, stored: "torch.dtype") -> Callable[[], None]:
    """Let each linear layer of `model` compute with what `merge` writes in its place: NF4 values
    and adapter added up in float32 and rounded once, to `stored`.

    A weight is made when its layer is called and not kept: it takes the memory of one layer, and
    the time of making it. With the adapter off a layer is the base's. Returns what undoes it.
    """
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer | Linear4bit)]
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.forward, stored)

    def undo() -> None:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward

    return undo


@contextlib.contextmanager
def as_merged(model: Any, stored: "torch.dtype") -> Iterator[None]:
    """`compute_as_merged` for a while."""
    undo = compute_as_merged(model, stored)
    try:
        yield
    finally:
        undo()


def _forward(
    layer: Any, own: Callable[..., "Tensor"], stored: "torch.dtype", x: "Tensor", *rest: Any
) -> "Tensor":
    from torch.nn.functional import linear

    if getattr(layer, "disable_adapters", False):
        return own(x, *rest)
    base = getattr(layer, "base_layer", layer)
    return linear(x, merged_weight(layer, stored).to(x.dtype), base.bias)


def merged_weight(layer: Any, stored: "torch.dtype") -> "Tensor":
    """[out, in] in `stored`: what `merge` writes for a `Linear4bit`, with an adapter or without."""
    from bitsandbytes.functional import dequantize_4bit

    base = getattr(layer, "base_layer", layer)
    held: Tensor = base.weight.data
    if (state := getattr(base.weight, "quant_state", None)) is not None:
        held = dequantize_4bit(held, state)
    if base is layer:
        return held.to(stored)
    total = held.float()
    for name in layer.active_adapters:
        a_RI, b_OR = layer.lora_A[name].weight, layer.lora_B[name].weight
        total = total.addmm(b_OR.float(), a_RI.float(), alpha=layer.scaling[name])
    return total.to(stored)
