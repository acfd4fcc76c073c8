"""The sizes of a base model that decide memory and time."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that decide memory and time; parameter counts are of the whole model.

    `q` and `kv` are the widths of the query and of the key, `largest_matrix` the values of the
    largest quantised matrix, `embedding_parameters` those of embedding and head. In NF4 too are
    `expert_parameters`; `active_parameters` are those of the `experts_of_a_token`, to which one
    token is sent. `normed_outputs` are what of a layer a norm follows, before it joins the
    residual stream: two or none, and `normed_heads` is 1 where queries and keys are normed. A value
    of the stream takes `stream_bytes`. Where some layers keep a state instead of attention, `mixed`
    values of a token are saved by what mixes tokens in a layer, at most, and `mixing` in float32
    are made while that is computed; else both are 0. With `whole_scores` the stock path's attention
    makes the scores of all pairs of tokens.
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
    expert_parameters: int = 0
    active_parameters: int = 0
    experts_of_a_token: int = 0
    normed_outputs: int = 0
    normed_heads: int = 0
    stream_bytes: int = 2
    mixed: int = 0
    mixing: int = 0
    whole_scores: bool = False

    @property
    def parameters(self) -> int:
        return self.quantised_parameters + self.other_parameters

    @property
    def quantised_parameters(self) -> int:
        return self.linear_parameters + self.expert_parameters


def widest(config: Any, name: str) -> int | None:
    """A size of a language model in transformers' words; where its layers differ, the largest."""
    try:
        sizes = [getattr(config, name, None)]
    except RuntimeError:  # that it is another in each layer
        sizes = [getattr(layer, name, None) for layer in config.per_layer_config]
    return max((max(s) if isinstance(s, list | tuple) else s for s in sizes if s), default=None)


def attention_heads(config: Any) -> int:
    return widest(config, "num_attention_heads") or 1


def head_size(config: Any) -> int:
    """Values of one attention head."""
    return widest(config, "head_dim") or int(config.hidden_size // attention_heads(config))


def key_value_heads(config: Any) -> int:
    """Heads of keys and of values, which several heads of queries may share."""
    return widest(config, "num_key_value_heads") or attention_heads(config)


CHUNK = 64  # tokens of a row whose steps are solved together


def mixed_values(config: Any) -> tuple[int, int]:
    """`ModelShape.mixed` and `mixing` of a language model's config."""
    heads = getattr(config, "linear_num_value_heads", None)
    if not heads:
        return 0, 0
    key_size, size = config.linear_key_head_dim, config.linear_value_head_dim
    delta = 2 * config.linear_num_key_heads * key_size + 2 * heads * size + 2 * heads
    q, kv = attention_heads(config) * head_size(config), key_value_heads(config) * head_size(config)
    # In chunks: decays, products, a solution; of each chunk a state; and gradients of all.
    in_chunks = 2 * CHUNK + 4 * (key_size + size) + 2 * key_size * size // CHUNK
    return max(delta, 3 * q + 2 * kv), 2 * heads * in_chunks
