"""The sizes in a base model's `config.json`, looked at before a model is made of them.

Each layer is objects of Python's: as many as a number of 30 digits says are tried until none fits.
What a size is called here differs from model to model, so that the modules are counted too while
they are made (`bounded`).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

MOST_LAYERS = 1000
MOST_MODULES = 300_000  # of a model; one of 61 layers with 256 experts each has 75,000
_MOST_LISTED = 1 << 24  # of what numbers in lists of lists say how often it is repeated
_OF_LAYERS = re.compile(r"(?:.*_)?(?:layers?|blocks?|depths?)")

LARGEST = {
    "head_dim": 1 << 14,
    "hidden_size": 1 << 18,
    "intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 14,
    "num_hidden_layers": MOST_LAYERS,
    "num_labels": 1 << 24,
    "num_key_value_heads": 1 << 14,
    "num_local_experts": 1 << 14,
    "n_routed_experts": 1 << 14,
    "num_experts": 1 << 14,
    "vocab_size": 1 << 24,
    "n_embd": 1 << 18,
    "n_head": 1 << 14,
    "n_layer": MOST_LAYERS,
}
"""By key; some models have a list of them, one a layer"""


def size_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What in `config`, and in the configs inside of it, is no size of a model that anybody has
    made, and no name of its class."""
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(type(n) is str for n in named)):
        yield f"architectures={str(named)[:40]} are no names"
    left: list[Mapping[str, Any]] = [config]
    while left:
        part = left.pop()
        yield from _faults_of(part)
        left += [value for value in part.values() if isinstance(value, dict)]


def _faults_of(config: Mapping[str, Any]) -> Iterator[str]:
    for name, given in config.items():
        is_layers = name not in LARGEST and _OF_LAYERS.fullmatch(name)
        most = MOST_LAYERS if is_layers else LARGEST.get(name)
        for size in given if isinstance(given, list) else [given]:
            if is_layers and (type(size) is not int or size < 0):  # it may hold else, as a -1
                continue
            if most and size is not None and (type(size) is not int or not 0 <= size <= most):
                yield f"{name}={str(size)[:40]} is no number up to {most:,}"
                break
        if isinstance(given, list) and _listed(given) > _MOST_LISTED:
            yield f"{name}={str(given)[:40]} lists more than {_MOST_LISTED:,}"
    heads, shared = (config.get(f"num_{kind}_heads") for kind in ("attention", "key_value"))
    if type(heads) is type(shared) is int and 0 < shared <= heads and heads % shared:
        yield f"num_key_value_heads={shared} do not divide num_attention_heads={heads}"


def _listed(given: list[Any]) -> int:
    """The sum of the numbers in lists of lists: some configs write how often something comes."""
    total = 0
    left: list[Any] = [inner for inner in given if isinstance(inner, list)]
    while left:
        for inner in left.pop():
            if isinstance(inner, list):
                left.append(inner)
            elif type(inner) is int:
                total += abs(inner)
    return total


@contextmanager
def bounded() -> Iterator[None]:
    """While a model is made of a config: ValueError for one of more modules than any has."""
    from torch.nn.modules.module import register_module_module_registration_hook

    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > MOST_MODULES:
            raise ValueError(f"it has more than {MOST_MODULES:,} modules")

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
