"""The formats that a fine-tuned model is exported to: a name and the module that writes it.

A new one is a module beside this page with a function `export` like `Export`, and a line here.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trainer.models.adapters import Adapter
    from trainer.settings import Settings

# Imported when it is asked for: each brings the libraries of its format.
EXPORTERS: Mapping[str, str] = {"gguf": "trainer.export.gguf"}


class Export(Protocol):
    """Writes some parts of a fine-tuned model ("merged", "adapter", "base") to a new folder."""

    def __call__(
        self,
        adapter: "Adapter",
        settings: "Settings",
        parts: Sequence[str],
        output: Path,
        base_weights: str,
    ) -> Path:
        """Returns `output`, which is complete or absent.

        Raises SettingsError for a base or a tokenizer that the format cannot hold, DoesNotFitError
        for a disk that is too small, and what fetching the base raises.
        """


def exporter(name: str) -> Export:
    """What writes the format `name`, one of EXPORTERS."""
    export: Export = import_module(EXPORTERS[name]).export
    return export
