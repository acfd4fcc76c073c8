"""Where a base model is: on the hub, in a bucket, in a folder or built in; and that it is whole."""

import hashlib
from fnmatch import fnmatch
from pathlib import Path

from trainer.errors import SettingsError
from trainer.models import hub
from trainer.models.base_model import Base
from trainer.models.config_sizes import size_faults
from trainer.runtime.json_records import read_object
from trainer.runtime.keys import SEGMENT_BYTES
from trainer.runtime.log import one_line
from trainer.runtime.naming import digest
from trainer.settings import Settings
from trainer.storage import fetch, objects_at
from trainer.storage.files import disk_errors, sha256_of, staged
from trainer.storage.parallel import in_parallel
from trainer.uris import is_bucket_uri, publishable_uri

BUILTIN = Path(__file__).parent.parent / "builtin"
CONFIG_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "README.md"]  # and tokenizer; small
LARGEST_FILE_BYTES = 256 << 20  # of them; the largest tokenizers have 35 MiB


def locate_base(settings: Settings) -> Base:
    """Bring the base model's config and tokenizer to local disk; `load_base` brings the weights.

    Raises SettingsError, NotAllowedError or UnreachableError.
    """
    name = settings.base_model
    if name.startswith("builtin:"):
        if name.removeprefix("builtin:") not in {folder.name for folder in BUILTIN.iterdir()}:
            raise SettingsError(f"QLORA_BASE_MODEL={name}: the only built-in model is builtin:tiny")
        return local_base(BUILTIN / name.removeprefix("builtin:"), name)
    if is_bucket_uri(name):
        return _in_bucket(name, settings)
    if max(len(part.encode(errors="replace")) for part in name.split("/")) > SEGMENT_BYTES:
        raise SettingsError(
            f"QLORA_BASE_MODEL={one_line(name, 60, '…')}: no model and no folder has so long a name"
        )
    if Path(name).is_dir():
        return local_base(Path(name), Path(name).resolve().name)
    if Path(name).is_file():
        raise SettingsError(
            f"QLORA_BASE_MODEL={name} is a file: a base is a folder of config.json, tokenizer and "
            ".safetensors weights, or owner/name on the hub; a GGUF file cannot be trained"
        )
    if name.startswith((".", "/", "~")):
        raise SettingsError(f"QLORA_BASE_MODEL={name}: no such folder")
    return _on_hub(name, settings)


def note_folder(settings: Settings, base: Base) -> None:
    """Keep on this machine in which folder a base lies: what is published has its name alone."""
    if (folder := folder_of(settings, base)) is None:
        return
    note = _note(settings, base.name, base.revision)
    with disk_errors(note), staged(note) as file:
        file.write(str(folder.resolve()).encode())


def folder_of(settings: Settings, base: Base) -> Path | None:
    """Where a base lies that the settings name by its folder; None for any other."""
    is_named = settings.base_model.startswith("builtin:") or not base.is_here
    return None if is_named else base.folder


def noted_folder(settings: Settings, name: str, revision: str) -> Path | None:
    """Where the base of that name and revision lay when it was last trained on here, if it still
    does."""
    try:
        folder = Path(_note(settings, name, revision).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _note(settings: Settings, name: str, revision: str) -> Path:
    return settings.scratch_dir / "bases" / digest(f"{name} {revision}")


def _on_hub(name: str, settings: Settings) -> Base:
    minutes = settings.storage_retry_minutes
    folder = hub.snapshot(
        name,
        settings.base_revision,
        CONFIG_FILES,
        retry_minutes=minutes,
        most_bytes=LARGEST_FILE_BYTES,
    )
    configs = [path.name for path in folder.glob("*") if _is_config(path.name)]
    hub.check(folder, configs, name, retry_minutes=minutes)
    _check_config(folder, name)
    # The hub's cache names a snapshot's folder by its commit.
    return Base(folder, name, revision=folder.name, is_from_hub=True)


def _in_bucket(uri: str, settings: Settings) -> Base:
    """A model below a prefix; its revision is the digest of the names and ETags of its files."""
    minutes = settings.storage_retry_minutes
    store, found = objects_at(uri, retry_minutes=minutes)
    stored = [one for one in found if "/" not in one.name]
    into = settings.scratch_dir / "base" / hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    if not any(one.name == "config.json" for one in stored):
        raise SettingsError(f"{uri}: no config.json there; name the prefix that holds the model")
    fetch(uri, into, retry_minutes=minutes, wanted=_is_config)
    digest = hashlib.sha256()
    for one in stored:
        if one.name == "config.json" or one.name.endswith(".safetensors"):
            digest.update(f"{one.name} {one.size} {one.version}\n".encode())
    _check_config(into, uri)
    return Base(
        into,
        publishable_uri(uri),
        f"etag:{digest.hexdigest()[:16]}",
        bucket_uri=uri,
        stored=tuple(stored),
    )


def _is_config(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in CONFIG_FILES)


def local_base(folder: Path, name: str) -> Base:
    """A model in a folder; its revision is the digest of its config and weights."""
    _check_config(folder, name)
    digest = hashlib.sha256()
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    if odd := [path.name for path in files if not path.is_file()]:
        raise SettingsError(
            f"{name}: its {one_line(odd[0], 80)} is a folder, a pipe or a device and no file of "
            "weights; remove it or put the file itself there"
        )
    digest.update("".join(in_parallel(sha256_of, files)).encode())
    return Base(folder, name, f"sha256:{digest.hexdigest()[:16]}")


def _check_config(folder: Path, name: str) -> None:
    config = folder / "config.json"
    if not config.is_file():
        if (folder / "adapter_config.json").is_file():
            raise SettingsError(
                f"{name}: is an adapter; `ask --adapter` asks it, and QLORA_BASE_MODEL is what it "
                "was trained on"
            )
        raise SettingsError(f"{name}: no config.json there; name the folder that holds the model")
    small = (path for pattern in CONFIG_FILES for path in folder.glob(pattern) if path.is_file())
    if large := [path.name for path in small if path.stat().st_size > LARGEST_FILE_BYTES]:
        raise SettingsError(
            f"{name}: its {min(large)} has more than {LARGEST_FILE_BYTES >> 20} MiB, which no "
            "config and no tokenizer has; choose another QLORA_BASE_MODEL"
        )
    try:
        found = read_object(config)
    except ValueError as error:
        raise SettingsError(f"{name}: its config.json is not JSON of an object ({error})") from None
    if faults := "; ".join(size_faults(found)):
        raise SettingsError(f"{name}: its config.json describes no model: {faults}")
