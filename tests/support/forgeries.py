"""Checkpoints that somebody has changed, with a manifest that fits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from trainer.storage.manifest import seal

Forgery = Callable[[Path], object]


def bytes_of(name: str, content: bytes) -> Forgery:
    return lambda folder: (folder / name).write_bytes(content)


def tensors_of(name: str, change: Callable[[dict[str, Any]], object]) -> Forgery:
    def forge(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return forge


def json_of(name: str, change: Callable[[Any], object]) -> Forgery:
    def forge(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return forge


def forge_newest(folder: Path, forge: Forgery, which: slice = slice(-1, None)) -> None:
    """On the disk and in the store alike."""
    for place in (*folder.glob("scratch/runs/*/checkpoints"), *folder.glob("out/*/checkpoints")):
        for checkpoint in sorted(place.glob("step-*"))[which]:
            forge(checkpoint)
            seal(checkpoint)
