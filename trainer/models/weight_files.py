"""The files of a base's 16-bit weights: their names, brought to this disk or read as streams."""

import re
from functools import partial
from pathlib import Path

from trainer.errors import DataError, SettingsError
from trainer.models import hub
from trainer.models.base_model import Base
from trainer.models.safetensors_stream import Shard
from trainer.runtime.json_records import read_object, well_formed
from trainer.settings import Settings
from trainer.storage import fetch, objects_at
from trainer.storage.files import chunks_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"  # never a pickle


def fetch_weights(base: Base, settings: Settings) -> list[Path]:
    """Every file of the base's weights, brought to local disk. Raises as `locate_base` does."""
    names = _names(base)
    minutes = settings.storage_retry_minutes
    if base.is_from_hub:
        hub.snapshot(base.name, base.revision, names, retry_minutes=minutes)
        hub.check(base.folder, names, base.name, retry_minutes=minutes)
    if base.bucket_uri:
        wanted = {*names, *(path.name for path in base.folder.iterdir())}
        fetch(base.bucket_uri, base.folder, retry_minutes=minutes, wanted=wanted.__contains__)
    return _on_disk(base, names)


def open_shards(base: Base, settings: Settings) -> list[Shard]:
    """The same files as streams; those in a bucket are never written to this disk.

    Raises as `locate_base` does.
    """
    names, minutes = _names(base), settings.storage_retry_minutes
    if base.is_from_hub:
        hub.snapshot(base.name, base.revision, names, retry_minutes=minutes)
    if not base.bucket_uri:
        return [_shard_on_disk(base, path, minutes) for path in _on_disk(base, names)]
    store, _ = objects_at(base.bucket_uri, retry_minutes=minutes)
    stored = {one.name: one for one in base.stored}
    missing = [name for name in names if name not in stored]
    if missing:
        raise _no_weights(base, missing[0])
    return [
        Shard(store.uri + name, stored[name].size, partial(store.chunks, stored[name]))
        for name in names
    ]


def _names(base: Base) -> list[str]:
    """The names of the base's weights: those of its index, or the one file. Raises DataError."""
    index = base.folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        with well_formed("an index"):
            names = sorted(set(read_object(index)["weight_map"].values()))
            sound = bool(names) and all(re.fullmatch(r"[\w.-]+\.safetensors", n) for n in names)
    except ValueError:
        sound = False
    if not sound:
        raise DataError(f"{base.name}: its {INDEX} is broken; bring the model there again")
    return names


def _on_disk(base: Base, names: list[str]) -> list[Path]:
    missing = [name for name in names if not (base.folder / name).is_file()]
    if missing:
        raise _no_weights(base, missing[0])
    return [base.folder / name for name in names]


def _shard_on_disk(base: Base, path: Path, minutes: float) -> Shard:
    read = partial(chunks_of, path)
    if base.is_from_hub:
        read = partial(hub.read, base.folder, path.name, base.name, retry_minutes=minutes)
    return Shard(str(path), path.stat().st_size, read)


def _no_weights(base: Base, name: str) -> SettingsError:
    return SettingsError(
        f"{base.name}: no .safetensors weights there ({name} is missing); "
        "pickled weights are never read"
    )
