"""How a checkpoint's files name weights that transformers names otherwise once they are loaded."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.models.base_model import Base


class CheckpointNames:
    """Names in the files of a base and in the model that is loaded from them.

    Both classes of a model are asked: the one that is trained and the one that its config names.
    """

    def __init__(self, base: "Base") -> None:
        models = (base.skeleton, base.named_skeleton)
        self._classes = [_Mapping(model) for model in models if model is not None]

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


class _Mapping:
    """transformers' own of one class."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        mapping = get_model_conversion_mapping(model)
        self._renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
        self._converters = [m for m in mapping if isinstance(m, WeightConverter)]
        self._prefix, self._state = model.base_model_prefix, model.state_dict()

    def loaded(self, stored: str) -> str | None:
        from transformers.core_model_loading import rename_source_key

        name, converted = rename_source_key(
            stored, self._renamings, self._converters, self._prefix, self._state
        )
        found: str = name
        return found if converted is None and name in self._state else None
