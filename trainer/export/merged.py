"""The adapter merged into the base's own 16-bit weights: a model that needs no adapter.

Not into the 4-bit weights: rounding to NF4 once more adds an error of 9 % of a weight, however
small the change that the adapter makes (docs/decisions/0009-leaving.md has the figures).
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import DoesNotFitError, SettingsError
from trainer.export.lora_delta import Delta, deltas, tensors_of
from trainer.models import load
from trainer.models.adapters import Adapter
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import stop_ids

log = logging.getLogger(__name__)

GB = 10**9


def merge(adapter: Adapter, settings: Settings, output: Path) -> Path:
    """Write base + adapter to the folder `output`, as transformers and vLLM load a model.

    Each file keeps the name, the order and the precision of the base's; one tensor at a time is
    in memory. `output` is complete or absent.
    """
    files = load.weights(adapter.base, settings)
    stored = [tensor for file in files for tensor in tensors_of(file)[1]]
    added = deltas(adapter, stored)
    with complete_or_absent(output, sum(file.stat().st_size for file in files)) as folder:
        for done, file in enumerate(files, 1):
            _merge_file(file, folder / file.name, added)
            log.info("merged file %d of %d", done, len(files))
        for index in adapter.base.folder.glob("*.safetensors.index.json"):
            shutil.copy(index, folder)
        _write_config(adapter, folder)
    return output


def _merge_file(source: Path, target: Path, added: Mapping[str, Delta]) -> None:
    import torch

    before, stored = tensors_of(source)
    with target.open("wb") as stream:
        stream.write(before)
        for tensor in stored:
            tensor.read(added.get(tensor.name)).view(-1).view(torch.uint8).numpy().tofile(stream)


def _write_config(adapter: Adapter, folder: Path) -> None:
    """The base's config, the adapter's tokenizer, and the tokens that end an answer."""
    shutil.copy(adapter.base.folder / "config.json", folder)
    generation = adapter.base.folder / "generation_config.json"
    record = json.loads(generation.read_text()) if generation.exists() else {}
    tokenizer = adapter.tokenizer()
    tokenizer.save_pretrained(folder)
    record["eos_token_id"] = stop_ids(tokenizer)
    (folder / generation.name).write_text(json.dumps(record, indent=2) + "\n")


@contextmanager
def complete_or_absent(output: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends without an error.

    Raises SettingsError when `output` holds something, DoesNotFitError when the disk is too small.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise SettingsError(f"--output {output}: is there already; name a new folder")
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        free = shutil.disk_usage(staging).free
        if free < needed_bytes:
            raise DoesNotFitError(
                f"--output {output}: needs {needed_bytes / GB:.1f} GB, its disk has "
                f"{free / GB:.1f} GB left; make room or name a folder on another one"
            )
        yield staging
        if output.is_dir():
            output.rmdir()
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
