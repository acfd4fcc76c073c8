"""Checkpoints of a run that trains nothing, on several machines, and damage to their files."""

from collections.abc import Callable
from pathlib import Path

from trainer.runs.checkpoints import Checkpoints
from trainer.storage import FolderStore


def fill(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "adapter.safetensors").write_bytes(bytes([step]) * 1000)
        (folder / "state.json").write_text(f'{{"step": {step}}}')

    return write


def open_checkpoints(tmp_path: Path, node: str = "node", fingerprint: str = "mine") -> Checkpoints:
    store = FolderStore(tmp_path / "store")
    return Checkpoints(tmp_path / node, store, "run/checkpoints", fingerprint, node)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
