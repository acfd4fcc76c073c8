"""A run that has saved."""

from pathlib import Path

import pytest
from support.checkpoints import fill, open_checkpoints


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two checkpoints, on the node and in the store."""
    checkpoints = open_checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, fill(step))
    checkpoints.finish()
    return tmp_path
