"""How a checkpoint's files name weights that transformers names otherwise once they are loaded."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.models.base_model import Base


STACKED = [("MergeModulelist", 0), ("Concatenate", 1)]  # transformers' steps


@dataclass(frozen=True)
class Place:
    """Where a tensor of the files goes: the weight `name` of the loaded model, all of it or one
    `matrix` of its experts'."""

    name: str
    matrix: int | None = None


class CheckpointNames:
    """Names in the files of a base and in the model that is loaded from them.

    Both classes of a model are asked: the one that is trained and the one that its config names.
    """

    def __init__(self, base: "Base") -> None:
        models = (base.skeleton, base.named_skeleton)
        self._classes = [NameMapping(model) for model in models if model is not None]

    def loaded(self, stored: str) -> set[str]:
        """What a weight of the files is called where it is loaded as it is; one that transformers
        splits, joins or turns has no name."""
        found = (mapping.loaded(stored) for mapping in self._classes)
        return {name for name in found if name is not None}

    def in_files(self, stored: Collection[str]) -> dict[str, str]:
        """Name in the loaded model, or in the files themselves, to name in the files."""
        return {name: name for name in stored} | {
            name: one for one in stored for name in self.loaded(one)
        }


class NameMapping:
    """transformers' own of one class: names in its files to names of its model."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        mapping = get_model_conversion_mapping(model)
        self._renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
        self._converters = [m for m in mapping if isinstance(m, WeightConverter)]
        self._prefix, self._state = model.base_model_prefix, model.state_dict()

    def loaded(self, stored: str) -> str | None:
        place = self.place(stored)
        return None if place is None or place.matrix is not None else place.name

    def place(self, stored: str) -> Place | None:
        """Where a tensor of the files is loaded to as it is, or as a matrix of experts; None for
        one that is not, or that transformers splits, joins or turns otherwise."""
        from transformers.core_model_loading import rename_source_key

        name, pattern = rename_source_key(
            stored, self._renamings, self._converters, self._prefix, self._state
        )
        if name not in self._state:  # as transformers' own loader
            return Place(stored) if stored in self._state else None
        return Place(name) if pattern is None else self._matrix(stored, name, pattern)

    def _matrix(self, stored: str, name: str, pattern: str) -> Place | None:
        """One of those that are stacked expert by expert, and then put one behind the other."""
        converter = next(c for c in self._converters if pattern in c.source_patterns)
        steps = [
            (type(step).__name__, step.dim) for step in converter.operations if hasattr(step, "dim")
        ]
        number = re.search(r"\.experts\.(\d+)\.", stored)
        parts = converter.source_patterns
        wanted = [("MergeModulelist", 0), ("Concatenate", 1)][: 1 if len(parts) == 1 else 2]
        if number is None or steps != wanted or len(steps) != len(converter.operations):
            return None
        return Place(name, int(number[1]) * len(parts) + parts.index(pattern))
