"""The quantised base kept at QLORA_BASE_CACHE_URI: a quarter of the bytes, and nothing to compute.

An entry is published like a run: safetensors files and, last, a manifest with their digests. Its
name is the digest of everything that decides its bits.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import weights
from trainer.errors import DataError, JobError
from trainer.settings import Settings
from trainer.storage import DamagedError, Stored, open_store, publish, read_manifest

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FILE_BYTES = 1 << 30
SOURCE = "source.json"


class BaseCache:
    """The place of one base, quantised for one dtype on one kind of device."""

    def __init__(
        self,
        settings: Settings,
        *,
        base: str,
        revision: str,
        dtype: "torch.dtype",
        place: "torch.device",
    ) -> None:
        from importlib.metadata import version

        source = {
            "base": base,
            "revision": revision,
            "quantisation": "NF4 in blocks of 64, double quantisation in blocks of 256",
            "dtype": str(dtype),
            "device": place.type,
            "bitsandbytes": version("bitsandbytes"),
        }
        self._source = json.dumps(source, indent=1, sort_keys=True)
        self._under = f"nf4-{hashlib.sha256(self._source.encode()).hexdigest()[:16]}"
        self._place = place
        self._folder = settings.scratch_dir / "base-cache" / self._under
        minutes = settings.storage_retry_minutes
        self._store = open_store(settings.base_cache_uri, retry_minutes=minutes)

    def bring(self) -> dict[str, "torch.Tensor"] | None:
        """The quantised weights; None when there are none. A damaged entry is removed."""
        try:
            manifest = read_manifest(self._store, self._under)
            if manifest is None:
                return None
            tensors = weights.bring(self._shards(manifest["objects"]), self._place)
        except DataError as error:
            log.warning("%s; quantising the base again", error)
            self._store.delete([f"{self._under}/manifest.json"])
            return None
        log.info("the quantised base comes from %s%s", self._store.uri, self._under)
        return tensors

    def keep(self, tensors: dict[str, "torch.Tensor"]) -> None:
        """Store the quantised weights. That it fails does not end the run."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(tensors, self._folder)
            (self._folder / SOURCE).write_text(self._source)
            publish(self._folder, self._store, self._under)
            log.info("the quantised base is kept at %s%s", self._store.uri, self._under)
        except (JobError, OSError) as error:
            log.warning("the quantised base is not kept: %s", error)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _shards(self, objects: dict[str, Any]) -> list[weights.Shard]:
        return [
            weights.Shard(
                f"{self._store.uri}{self._under}/{name}",
                content["size"],
                partial(self._checked, f"{self._under}/{name}", content),
            )
            for name, content in sorted(objects.items())
            if name.endswith(".safetensors")
        ]

    def _checked(self, name: str, content: dict[str, Any]) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for chunk in self._store.chunks(Stored(name, content["size"], "")):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != content["sha256"]:
            raise DamagedError(f"{self._store.uri}{name}: is not what its manifest lists")


def _write(tensors: dict[str, "torch.Tensor"], folder: Path) -> None:
    from safetensors.torch import save_file

    part: dict[str, torch.Tensor] = {}
    size = number = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > FILE_BYTES:
            save_file(part, folder / f"weights-{number:05d}.safetensors")
            part, size, number = {}, 0, number + 1
        # A copy: bitsandbytes shares its tables between weights, and safetensors refuses that.
        part[name] = tensor.detach().cpu().clone().contiguous()
        size += tensor.nbytes
    save_file(part, folder / f"weights-{number:05d}.safetensors")
