"""A base with random weights in NF4: what one computes and how fast does not depend on them."""

from math import prod
from typing import TYPE_CHECKING, Any

from trainer.models.base_model import Base
from trainer.models.load import finished, model_of, weight_layout
from trainer.models.nf4_stream import converted

if TYPE_CHECKING:
    import torch

    from trainer.runtime.device import Precision

DRAWN = 2**20  # values, which repeat: no product takes longer for them


def random_base(base: Base, precision: "Precision") -> Any:
    """As `load_base` gives it, on a CPU, of which only the config was there. Raises
    UnknownLayoutError where weights are not stored as they are computed with."""
    import torch

    on, dtype = torch.device("cpu"), precision.dtype
    layout = weight_layout(base, dtype)
    drawn = torch.randn(DRAWN, generator=torch.Generator().manual_seed(0), dtype=dtype) / 50
    made: dict[tuple[int, ...], dict[str, torch.Tensor]] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, (_, shape) in layout.expected.items():
        if name in layout.tied:
            continue
        if name not in layout.quantised:
            tensors |= converted(name, _filled(drawn, shape), layout)
            continue
        if shape not in made:
            of_shape = converted(name, _filled(drawn, shape), layout)
            made[shape] = {key.removeprefix(name): part for key, part in of_shape.items()}
        tensors |= {name + key: part.clone() for key, part in made[shape].items()}
    return finished(model_of(base, tensors, layout, dtype, on), precision)


def _filled(drawn: "torch.Tensor", shape: tuple[int, ...]) -> "torch.Tensor":
    count = prod(shape)
    return drawn.repeat(-(-count // len(drawn)))[:count].view(shape).clone()
