"""GGUF files for llama.cpp and what is built on it, and a Modelfile for Ollama.

Matrices are written in float16, which every runtime reads at full speed and a T4 too; vectors in
float32, as llama.cpp wants them. Its `llama-quantize` makes smaller files of these.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

from trainer.errors import SettingsError
from trainer.evaluation.verdict import caution
from trainer.export.gguf_architecture import Architecture, architecture_of
from trainer.export.gguf_vocabulary import Vocabulary, vocabulary_of
from trainer.export.lora_delta import NF4, Delta, MergedReader, Start, deltas_of
from trainer.export.ollama import modelfile, next_commands
from trainer.export.output_folder import complete_or_absent
from trainer.models.adapters import Adapter
from trainer.models.safetensors_files import StoredTensor, read_header
from trainer.models.weight_files import fetch_weights
from trainer.monitoring.counting import waiting
from trainer.runtime.log import copied
from trainer.settings import Settings
from trainer.tokenization.chat_template import ensure_chat_template
from trainer.tokenization.record_tokenizer import stop_ids, tokenizer_of_records

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

PARTS = ("merged", "adapter", "base")


@waiting("exporting")
def export(
    adapter: Adapter,
    settings: Settings,
    parts: Sequence[str],
    output: Path,
    base_weights: str = NF4,
) -> Path:
    """Write `parts`, some of PARTS, as `merged.gguf` and so on to the folder `output`.

    One tensor at a time is in memory; `output` is complete or absent. `base_weights` is NF4 or
    OWN. Raises SettingsError for a
    base or a tokenizer that cannot be written here.
    """
    architecture = architecture_of(adapter.base)
    tokenizer = adapter.tokenizer()
    ensure_chat_template(tokenizer)
    words = vocabulary_of(tokenizer, architecture.config.vocab_size)
    stored = [t for file in fetch_weights(adapter.base, settings) for t in read_header(file)[1]]
    deltas = deltas_of(adapter, stored)
    stored = architecture.of_text(stored)
    start = Start(adapter, base_weights)
    trained = start.trained_weights()
    size = len({*parts} - {"adapter"}) * sum(tensor.size for tensor in stored)
    with complete_or_absent(output, size) as folder:
        for part in parts:
            path = folder / f"{part}.gguf"
            writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture.arch])
            if part == "adapter":
                _write_adapter(writer, architecture, adapter, deltas)
            else:
                architecture.describe(writer)
                writer.add_description(start.sentence())
                describe_tokenizer(writer, tokenizer, words)
                reader = MergedReader(stored, deltas if part == "merged" else {}, trained)
                _write_tensors(writer, architecture, stored, reader)
            log.info("wrote %s, %.2f GB", path.name, path.stat().st_size / 1e9)
        (folder / "Modelfile").write_text(
            modelfile(tokenizer, parts, adapter.base.name), encoding="utf-8"
        )
    log.info("%s", start.sentence())
    if (said := caution(adapter.warnings)) is not None:
        log.warning("%s", said)
    for command in next_commands(output, parts):
        log.info("%s", command, extra=copied(command=command))
    return output


def _write_tensors(
    writer: gguf.GGUFWriter,
    architecture: Architecture,
    stored: Sequence[StoredTensor],
    reader: MergedReader,
) -> None:
    """Names and sizes first, then the tensors one by one."""
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    factors = architecture.rope_factors()
    if factors is not None:
        _announce(writer, "rope_freqs.weight", tuple(factors.shape))
    for tensor in stored:
        _announce(writer, architecture.tensor(tensor.name), tensor.shape)
    _write_header(writer)
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors.numpy())
    for tensor in stored:
        rows = architecture.arranged(tensor.name, reader.read(tensor))
        writer.write_tensor_data(_array(rows, tensor.name))
    writer.close()


def _write_adapter(
    writer: gguf.GGUFWriter,
    architecture: Architecture,
    adapter: Adapter,
    deltas: Mapping[str, Delta],
) -> None:
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(f"adapter for {architecture.name}")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.config["lora_alpha"]))
    for weight, delta in deltas.items():
        name = architecture.tensor(weight)
        writer.add_tensor(f"{name}.lora_a", delta.a_RI.numpy())
        rows = architecture.arranged(weight, delta.b_OR).contiguous()
        writer.add_tensor(f"{name}.lora_b", rows.numpy())
    _write_header(writer)
    writer.write_tensors_to_file()
    writer.close()


def describe_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, words: Vocabulary) -> None:
    """The vocabulary, the special tokens, and the chat template that was trained."""
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre_tokenizer)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    if words.merges:
        writer.add_token_merges(words.merges)
    if words.scores:
        writer.add_token_scores(words.scores)
        writer.add_add_space_prefix(words.space_prefix)
    for turn in {*stop_ids(tokenizer)} - {tokenizer.eos_token_id}:
        writer.add_eot_token_id(turn)
    for add, token in (
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(bool(tokenizer_of_records(tokenizer).bos_ids))
    writer.add_chat_template(tokenizer.get_chat_template())


def _announce(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...]) -> None:
    import numpy as np

    kind = np.dtype(np.float32 if len(shape) == 1 else np.float16)
    writer.add_tensor_info(name, shape, kind, kind.itemsize * math.prod(shape))


def _write_header(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()


def _array(tensor: "Tensor", name: str) -> Any:
    """As `_announce` says. Raises SettingsError for what float16 cannot hold."""
    import torch

    narrow = tensor.float() if tensor.dim() == 1 else tensor.half()
    if not torch.isfinite(narrow).all():
        raise SettingsError(
            f"{name}: holds values that float16 cannot; use merge and then llama.cpp's "
            "convert_hf_to_gguf.py --outtype bf16"
        )
    return narrow.contiguous().numpy()
