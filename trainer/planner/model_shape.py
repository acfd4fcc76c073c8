"""The sizes of a base model that decide memory and time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that decide memory and time; parameter counts are of the whole model.

    `q` and `kv` are the widths of the query and of the key, `widest` the values of the largest
    quantised matrix, `ends_parameters` those of embedding and head.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    q: int
    kv: int
    widest: int
    linear_parameters: int
    ends_parameters: int
    other_parameters: int

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters
