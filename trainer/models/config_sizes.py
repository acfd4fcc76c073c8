"""The sizes in a base model's `config.json`, looked at before a model is made of them.

Each layer is objects of Python's: as many as a number of 30 digits says are tried until none fits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

LARGEST = {
    "head_dim": 1 << 14,
    "hidden_size": 1 << 18,
    "intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 14,
    "num_hidden_layers": 1000,
    "num_labels": 1 << 24,
    "num_key_value_heads": 1 << 14,
    "num_local_experts": 1 << 14,
    "n_routed_experts": 1 << 14,
    "num_experts": 1 << 14,
    "vocab_size": 1 << 24,
    "n_embd": 1 << 18,
    "n_head": 1 << 14,
    "n_layer": 1000,
}
"""By key; some models have a list of them, one a layer"""


def size_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What in `config` and its `text_config` is no size of a model that anybody has made, and no
    name of its class."""
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(type(n) is str for n in named)):
        yield f"architectures={str(named)[:40]} are no names"
    for name, most in LARGEST.items():
        given = config.get(name)
        for size in given if isinstance(given, list) else [given]:
            if size is not None and (type(size) is not int or not 0 <= size <= most):
                yield f"{name}={str(size)[:40]} is no number up to {most:,}"
                break
    nested = config.get("text_config")
    if isinstance(nested, dict):
        yield from size_faults({k: v for k, v in nested.items() if k != "text_config"})
