"""The manifest that makes objects a whole: written last, deleted first.

`{"objects": {name: {"size": bytes, "sha256": hex}}}` in `manifest.json` beside the objects. What
has none is no run, no checkpoint and no shard, so that nothing half-written is ever taken for one.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.errors import DataError
from trainer.runtime import keys
from trainer.runtime.json_records import json_object, well_formed
from trainer.storage.files import sync_folder
from trainer.storage.local import FolderStore
from trainer.storage.store import Content, Store

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Published:
    """What the manifest of a run lists, by name below the run."""

    objects: Mapping[str, Content]
    is_ours: bool
    """False: the run was published before, and this call changed nothing"""


def encode(objects: Mapping[str, Content]) -> bytes:
    """The manifest that lists `objects`, by name."""
    listed = {name: asdict(content) for name, content in objects.items()}
    return json.dumps({"objects": listed}, indent=1, sort_keys=True).encode()


def decode(data: bytes) -> dict[str, Content]:
    """The inverse of `encode`. Raises ValueError when `data` is no manifest."""
    with well_formed("a manifest"):
        listed = json_object(data, MANIFEST)["objects"].items()
        if not all(_is_content(entry) for _, entry in listed):
            raise ValueError("an entry has no size or no SHA-256")
        return {name: Content(entry["size"], entry["sha256"]) for name, entry in listed}


def read_manifest(store: Store, under: str) -> dict[str, Content] | None:
    """What the manifest of `under` lists, by name; None without one.

    Raises DataError when it is broken.
    """
    data = store.read(f"{under}/{MANIFEST}")
    if data is None:
        return None
    try:
        return decode(data)
    except ValueError:
        fact = f"{store.uri}{under}: its {MANIFEST} is broken"
        raise DataError(f"{fact}; publish the run again") from None


def write_manifest(store: Store, under: str, objects: Mapping[str, Content]) -> Published:
    """List what lies below `under` by now; of several who do it the first decides."""
    if store.write(f"{under}/{MANIFEST}", encode(objects), only_if_absent=True):
        return Published(objects, is_ours=True)
    winner = read_manifest(store, under) or {}
    if winner != objects:
        log.warning("%s: another process published a different run first", store.uri + under)
    return Published(winner, is_ours=False)


def delete_manifest(store: Store, under: str) -> None:
    """From now on what lies below `under` is nothing whole; the next who writes it replaces it."""
    store.delete([f"{under}/{MANIFEST}"])


def delete_with_manifests(store: Store, under: str) -> None:
    """Delete all that lies below `under`; manifests first, for the rest is nothing without."""
    listed = (stored.name for stored in store.list(f"{under}/"))
    names = [name for name in listed if not keys.fault(name)]  # any other is not a run's
    store.delete([name for name in names if name.endswith("/" + MANIFEST)])
    store.delete([name for name in names if not name.endswith("/" + MANIFEST)])


def contents_of(folder: Path) -> dict[str, Content]:
    """Size and SHA-256 of every file in `folder` but its manifest, by name."""
    listed = FolderStore(folder).list()
    return {s.name: Content(s.size, s.version) for s in listed if s.name != MANIFEST}


def seal(folder: Path) -> None:
    """Write the manifest of a flat local folder, and make everything in it durable."""
    manifest = folder / MANIFEST
    manifest.unlink(missing_ok=True)
    manifest.write_bytes(encode(contents_of(folder)))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _is_content(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry["size"]) is int
        and entry["size"] >= 0
        and isinstance(entry["sha256"], str)
    )
