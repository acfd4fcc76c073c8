"""A folder as a store, a finished run, and a server that is no S3 server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.one_answer import one_answer, use_endpoint

from trainer.storage import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as the job leaves it for publishing."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "weights").write_bytes(b"hello")
    (tmp_path / "run" / "report.html").write_bytes(b"<p>")
    return tmp_path / "run"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The answer of the server that the environment leads every bucket to."""
    with one_answer() as (endpoint, reply):
        use_endpoint(monkeypatch, endpoint)
        yield reply
