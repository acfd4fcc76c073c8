"""Pickles that leave a mark when something loads them."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Touch(mark))


def saved_by_torch(mark: Path) -> bytes:
    out = io.BytesIO()
    torch.save(Touch(mark), out)
    return out.getvalue()


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return open, (str(self._path), "w")
