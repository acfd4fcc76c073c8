"""What models gave, on disk as it comes: a later start does not ask for it again."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.runtime.json_records import parse_json, well_formed
from trainer.runtime.regular_files import append, write_over


class Journal:
    """JSON values by key, a line each, written through to the disk; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known: dict[str, Any] = {}
        whole = b"".join(path.read_bytes().rpartition(b"\n")[:2]) if path.exists() else b""
        for line in whole.splitlines():
            with suppress(ValueError), well_formed("a line"):  # a broken one is asked for again
                key, value = parse_json(line)
                self._known |= {key: value}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_over(path, whole)  # without a line that a kill cut off

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """None for what is not known."""
        return self._known.get(key)

    def keep(self, values: dict[str, Any]) -> None:
        """Add `values`, which are on the disk when this returns."""
        lines = b"".join(json.dumps(pair).encode() + b"\n" for pair in values.items())
        with self._lock:
            append(self._path, lines, synced=True)
            self._known |= values
