"""The sizes of a base model that decide memory and time."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that decide memory and time; parameter counts are of the whole model.

    `q` and `kv` are the widths of the query and of the key, `largest_matrix` the values of the
    largest quantised matrix, `embedding_parameters` those of embedding and head.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    q: int
    kv: int
    largest_matrix: int
    linear_parameters: int
    embedding_parameters: int
    other_parameters: int

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters


def head_size(config: Any) -> int:
    """Values of one attention head; `config` is that of a language model in transformers' words."""
    own: int | None = getattr(config, "head_dim", None)
    return own or int(config.hidden_size // config.num_attention_heads)


def key_value_heads(config: Any) -> int:
    """Heads of keys and of values, which several heads of queries may share."""
    own: int | None = getattr(config, "num_key_value_heads", None)
    return own or int(config.num_attention_heads)
