"""The adapter merged into 16-bit weights: a model that needs no adapter.

They are the NF4 values that it was trained on, dequantised, unless the base's own are asked for.
Not rounded to NF4 again, which would add an error of 9 % of a weight, however small the change
that the adapter makes (docs/measurements/0009-leaving.md has the figures).
"""

import json
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.evaluation.verdict import caution
from trainer.export.lora_delta import NF4, MergedReader, Start, deltas_of
from trainer.export.output_folder import complete_or_absent
from trainer.models.adapters import Adapter
from trainer.models.load import MERGED
from trainer.models.safetensors_files import read_header
from trainer.models.weight_files import fetch_weights
from trainer.monitoring.counting import waiting
from trainer.runtime.json_records import read_object
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import stop_ids

SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p")

log = logging.getLogger(__name__)


@waiting("merging")
def merge(adapter: Adapter, settings: Settings, output: Path, base_weights: str = NF4) -> Path:
    """Write base + adapter to the folder `output`, as transformers and vLLM load a model.

    Each file keeps the name, the order and the precision of the base's; one tensor at a time is
    in memory. `output` is complete or absent. `base_weights` is NF4 or OWN.
    """
    start = Start(adapter, base_weights)
    files = fetch_weights(adapter.base, settings)
    stored = [tensor for file in files for tensor in read_header(file)[1]]
    reader = MergedReader(stored, deltas_of(adapter, stored), start.trained_weights())
    with complete_or_absent(output, sum(file.stat().st_size for file in files)) as folder:
        for done, file in enumerate(files, 1):
            _merge_file(file, folder / file.name, reader)
            log.info("merged file %d of %d", done, len(files))
        for index in adapter.base.folder.glob("*.safetensors.index.json"):
            shutil.copy(index, folder)
        _write_config(start, folder)
        (folder / "README.md").write_text(_card(start), encoding="utf-8")
    log.info("%s", start.sentence())
    if (said := caution(adapter.warnings)) is not None:
        log.warning("%s", said)
    log.info("transformers, vLLM and others load %s as any model, without an adapter", output)
    return output


def _merge_file(source: Path, target: Path, reader: MergedReader) -> None:
    import torch

    before, stored = read_header(source)
    with target.open("wb") as stream:
        stream.write(before)
        for tensor in stored:
            reader.read(tensor).view(-1).view(torch.uint8).numpy().tofile(stream)


def _write_config(start: Start, folder: Path) -> None:
    """The base's config with where it comes from, the adapter's tokenizer, and how an answer is
    generated: greedily, as it was tested, until one of the tokens that end it."""
    base = start.adapter.base.folder
    config = read_object(base / "config.json")
    _write_json(folder / "config.json", config | {MERGED: start.to_json()})
    generation = base / "generation_config.json"
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # without one, as with a broken one, a base is loaded too
        record = read_object(generation)
    tokenizer = start.adapter.tokenizer()
    tokenizer.save_pretrained(folder)
    kept = {name: value for name, value in record.items() if name not in SAMPLING}
    _write_json(folder / generation.name, kept | {"eos_token_id": stop_ids(tokenizer)})


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _card(start: Start) -> str:
    base = start.adapter.base
    metadata = f"---\nbase_model: {base.name}\nlibrary_name: transformers\n---\n\n"
    return f"""{metadata if base.is_from_hub else ""}# {base.name} with a merged LoRA adapter

{start.sentence()}

Load it in 16 bits and ask it greedily, as the adapter was tested. Never quantise it to NF4 again:
that can round away all that the adapter changes, and leave the base.
"""
