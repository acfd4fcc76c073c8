"""The quantised base kept at QLORA_BASE_CACHE_URI: a quarter of the bytes, and nothing to compute.

An entry is published like a run: safetensors files and, last, a manifest with their digests. Its
name is the digest of everything that decides its bits.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import DataError, JobError
from trainer.models.nf4_stream import (
    KeepShard,
    UnknownLayoutError,
    WeightLayout,
    load_quantised,
)
from trainer.models.safetensors_stream import Shard
from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES
from trainer.settings import Settings
from trainer.storage import Bytes, Content, DamagedError, Stored, open_store, publish, read_manifest
from trainer.storage.files import only_process
from trainer.storage.manifest import delete_manifest

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FILE_BYTES = 512 << 20  # as much is copied to host memory while it is written
SOURCE = "source.json"


class NF4Cache:
    """The entry of one base, quantised for one dtype on one device."""

    def __init__(
        self,
        settings: Settings,
        *,
        base: str,
        revision: str,
        dtype: "torch.dtype",
        device: "torch.device",
    ) -> None:
        from importlib.metadata import version

        source = {
            "base": base,
            "revision": revision,
            "quantisation": (
                f"NF4 in blocks of {BLOCK_VALUES}, double quantisation in blocks of {BLOCK_SCALES}"
            ),
            "dtype": str(dtype),
            "device": _device_name(device),
            "bitsandbytes": version("bitsandbytes"),
            "torch": version("torch"),
        }
        self._source = json.dumps(source, indent=1, sort_keys=True)
        self._under = f"nf4-{hashlib.sha256(self._source.encode()).hexdigest()[:16]}"
        self._device = device
        self._scratch = settings.scratch_dir / "base-cache"
        minutes = settings.storage_retry_minutes
        self._store = open_store(settings.base_cache_uri, retry_minutes=minutes)

    def load(self, layout: WeightLayout, keep: KeepShard) -> dict[str, "torch.Tensor"] | None:
        """What `keep` leaves of the quantised weights; None when there are none. An entry of no use
        is removed."""
        try:
            contents = read_manifest(self._store, self._under)
            if contents is None:
                return None
            shards = self._shards(contents)
            tensors = load_quantised(shards, layout, self._device, keep)
        except (DataError, UnknownLayoutError) as error:
            log.warning("%s; quantising the base again", error)
            delete_manifest(self._store, self._under)
            return None
        log.info("the quantised base comes from %s%s", self._store.uri, self._under)
        return tensors

    def store(self, tensors: dict[str, "torch.Tensor"]) -> None:
        """Store the quantised weights. That it fails does not end the run."""
        try:
            with only_process(self._scratch):  # another worker's base is the same
                if read_manifest(self._store, self._under) is None:
                    self._publish(tensors, self._scratch / self._under)
        except (JobError, OSError) as error:
            log.warning("the quantised base is not kept: %s", error)

    def _publish(self, tensors: dict[str, "torch.Tensor"], folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir()
        try:
            _write(tensors, folder)
            (folder / SOURCE).write_text(self._source, encoding="utf-8")
            publish(folder, self._store, self._under)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        log.info("the quantised base is kept at %s%s", self._store.uri, self._under)

    def _shards(self, contents: Mapping[str, Content]) -> list[Shard]:
        return [
            Shard(
                f"{self._store.uri}{self._under}/{name}",
                content.size,
                partial(self._checked, f"{self._under}/{name}", content),
            )
            for name, content in sorted(contents.items())
            if name.endswith(".safetensors")
        ]

    def _checked(self, name: str, content: Content) -> Iterator[Bytes]:
        digest = hashlib.sha256()
        for chunk in self._store.chunks(Stored(name, content.size, "")):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != content.sha256:
            raise DamagedError(f"{self._store.uri}{name}: is not what its manifest lists")


def _device_name(device: "torch.device") -> str:
    """What decides the order in which numbers are added: the mean behind the second quantisation
    is a sum, and its last bit differs between GPUs and with the number of CPU threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _write(tensors: dict[str, "torch.Tensor"], folder: Path) -> None:
    from safetensors.torch import save_file

    part: dict[str, torch.Tensor] = {}
    size = number = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > FILE_BYTES:
            save_file(part, folder / f"weights-{number:05d}.safetensors")
            part, size, number = {}, 0, number + 1
        # A copy: bitsandbytes shares its tables between weights, and safetensors refuses that.
        part[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size += tensor.nbytes
    save_file(part, folder / f"weights-{number:05d}.safetensors")
