"""The adapter merged into the base's own 16-bit weights: a model that needs no adapter.

Not into the 4-bit weights: rounding to NF4 once more adds an error of 9 % of a weight, however
small the change that the adapter makes (docs/measurements/0009-leaving.md has the figures).
"""

import json
import logging
import shutil
from pathlib import Path

from trainer.export.lora_delta import MergedReader, deltas_of
from trainer.export.output_folder import complete_or_absent
from trainer.models.adapters import Adapter
from trainer.models.safetensors_files import read_header
from trainer.models.weight_files import fetch_weights
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import stop_ids

log = logging.getLogger(__name__)


def merge(adapter: Adapter, settings: Settings, output: Path) -> Path:
    """Write base + adapter to the folder `output`, as transformers and vLLM load a model.

    Each file keeps the name, the order and the precision of the base's; one tensor at a time is
    in memory. `output` is complete or absent.
    """
    files = fetch_weights(adapter.base, settings)
    stored = [tensor for file in files for tensor in read_header(file)[1]]
    reader = MergedReader(stored, deltas_of(adapter, stored))
    with complete_or_absent(output, sum(file.stat().st_size for file in files)) as folder:
        for done, file in enumerate(files, 1):
            _merge_file(file, folder / file.name, reader)
            log.info("merged file %d of %d", done, len(files))
        for index in adapter.base.folder.glob("*.safetensors.index.json"):
            shutil.copy(index, folder)
        _write_config(adapter, folder)
    return output


def _merge_file(source: Path, target: Path, reader: MergedReader) -> None:
    import torch

    before, stored = read_header(source)
    with target.open("wb") as stream:
        stream.write(before)
        for tensor in stored:
            reader.read(tensor).view(-1).view(torch.uint8).numpy().tofile(stream)


def _write_config(adapter: Adapter, folder: Path) -> None:
    """The base's config, the adapter's tokenizer, and the tokens that end an answer."""
    shutil.copy(adapter.base.folder / "config.json", folder)
    generation = adapter.base.folder / "generation_config.json"
    record = json.loads(generation.read_text()) if generation.exists() else {}
    tokenizer = adapter.tokenizer()
    tokenizer.save_pretrained(folder)
    record["eos_token_id"] = stop_ids(tokenizer)
    (folder / generation.name).write_text(json.dumps(record, indent=2) + "\n")
