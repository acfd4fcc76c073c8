"""An adapter with its tokenizer as files: peft's own layout, without paths of this machine."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.models.adapter_config import CONFIG, WEIGHTS
from trainer.models.architecture import decoder_name, pattern_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trainer.models.base_model import Base


QUANTISATION = "quantization_config.json"


def save_adapter(
    model: Any, tokenizer: "PreTrainedTokenizerBase", base: "Base", folder: Path
) -> None:
    """The adapter in peft's own layout and the tokenizer, as they are published.

    What the base was quantised to leaves with them, for `BitsAndBytesConfig.from_dict`: the
    adapter answers as it was trained on those values only.
    """
    # "auto" would ask the hub whether the vocabulary grew; it never does here.
    model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's own, empty
    _write_quantisation(model, folder / QUANTISATION)
    _edit_json(folder / "tokenizer_config.json", name_or_path=base.name)
    targets = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["target_modules"]
    _edit_json(
        folder / CONFIG,
        base_model_name_or_path=base.name,
        revision=base.revision,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
    )
    if base.named_skeleton is not None:
        _fit_the_named_class(folder, base)


def with_twins(tensors: dict[str, Any], base: "Base") -> dict[str, Any]:
    """An adapter's tensors, under both their names where the base's config names another class
    than the one that is trained.

    peft leaves what a model does not have: so one file changes the language model alone and the
    whole of a vision-language model alike.
    """
    if base.named_skeleton is None:
        return tensors
    ours, named = decoder_name(base.skeleton), decoder_name(base.named_skeleton)
    twin = re.compile(rf"^(base_model\.model\.){re.escape(ours)}\.")
    return tensors | {twin.sub(rf"\1{named}.", name): value for name, value in tensors.items()}


def without_twins(tensors: dict[str, Any], base: "Base") -> dict[str, Any]:
    """What of an adapter's tensors the class that is trained has names for."""
    if base.named_skeleton is None:
        return tensors
    named = f"base_model.model.{decoder_name(base.named_skeleton)}."
    ours = {name: value for name, value in tensors.items() if not name.startswith(named)}
    return ours or tensors


def _fit_the_named_class(folder: Path, base: "Base") -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    tensors = with_twins(load_file(folder / WEIGHTS), base)
    save_file({name: value.clone() for name, value in tensors.items()}, folder / WEIGHTS, metadata)
    layers = {re.sub(r"^base_model\.model\.|\.lora_[AB]\.weight$", "", name) for name in tensors}
    _edit_json(folder / CONFIG, target_modules=pattern_of(layers))


def _write_quantisation(model: Any, path: Path) -> None:
    quantisation = getattr(model.config, "quantization_config", None)
    if quantisation is not None:
        record = quantisation.to_dict()
        said = {name: record[name] for name in record if name.startswith(("bnb_4bit", "load_in"))}
        path.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _edit_json(path: Path, **changes: Any) -> None:
    """Replace what a library wrote as it found it: local paths and an order that varies."""
    record = json.loads(path.read_text(encoding="utf-8"))
    record |= {name: value for name, value in changes.items() if name in record}
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
