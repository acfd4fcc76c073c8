"""An adapter with its tokenizer as files: peft's own layout, without paths of this machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    config = folder / "adapter_config.json"
    _edit_json(
        config,
        base_model_name_or_path=base.name,
        revision=base.revision,
        target_modules=sorted(json.loads(config.read_text(encoding="utf-8"))["target_modules"]),
    )


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
