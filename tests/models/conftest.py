"""A small Llama on disk, and a stand-in for the hub that holds the built-in model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import stand_in_hub
from support.bases import SIZES, write_base
from support.small_adapters import TINY


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[stand_in_hub.Hub]:
    """It holds the built-in model."""
    with stand_in_hub.running() as hub:
        hub.files = {path.name: path.read_bytes() for path in TINY.iterdir()}
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
        files = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
        yield hub


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("llama")
    return write_base(folder, LlamaConfig(**SIZES), torch.float16, "60KB")
