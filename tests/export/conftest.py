"""A run with a random adapter for the built-in model, and its GGUF files."""

from pathlib import Path

import pytest
from support.gguf_files import exported
from support.small_adapters import random_adapter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def files(run: Path) -> Path:
    """All parts of an adapter for the built-in model."""
    return exported(run / "files", run)
