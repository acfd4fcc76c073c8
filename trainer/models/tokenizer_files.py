"""A tokenizer from the files of a model or an adapter, whose config may come from anybody.

transformers hands what `tokenizer_config.json` and `special_tokens_map.json` hold to the class
that they name as arguments, and some classes take a path: each line of that file on this machine
would be a token, and be published with the tokenizer.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.models.tokenizer_limits import refuse_bombs
from trainer.runtime import native
from trainer.runtime.json_records import read_object
from trainer.runtime.log import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_S = 120.0  # the largest take five on a busy core
CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
TEXTS = {
    "backend",
    "chat_template",
    "errors",
    "model_type",
    "padding_side",
    "processor_class",
    "tokenizer_class",
    "truncation_side",
}
"""The keys beside those of tokens whose text is no name of a file"""
NESTED = {
    "added_tokens_decoder",
    "additional_special_tokens",
    "chat_template",
    "extra_special_tokens",
    "model_input_names",
    "model_specific_special_tokens",
}
"""The keys whose lists and objects are of tokens, or of names of tensors"""
WEIGHTS = {".bin", ".gguf", ".pt", ".pth", ".safetensors"}
"""The files that may lie elsewhere: no tokenizer reads them"""


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in `folder`, which opens no file outside of it and makes no text endless.

    Raises DataError for links that lead out of it, for one that takes minutes, as `refuse_bombs`,
    and whatever transformers and tokenizers raise.
    """
    try:
        tokenizer = native.within(MOST_S, lambda: _loaded(folder))
    except native.NoEndError:
        raise DataError(f"it was not read within {MOST_S:.0f} s") from None
    refuse_bombs(tokenizer)
    _check_template(tokenizer.chat_template)
    return tokenizer


def _loaded(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    _refuse_what_is_elsewhere(folder)
    there = [folder / name for name in CONFIGS if (folder / name).is_file()]
    read = {path.name: read_object(path) for path in there}
    harmless = {name: _harmless(config) for name, config in read.items()}
    if harmless == read:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with tempfile.TemporaryDirectory() as made:
        for path in folder.iterdir():
            if path.name not in harmless:
                Path(made, path.name).symlink_to(path.resolve())
        for name, config in harmless.items():
            Path(made, name).write_text(json.dumps(config), encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(made, trust_remote_code=False)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _check_template(found: Any) -> None:
    """Where there are several, the one called default is rendered. Raises DataError."""
    several = found if isinstance(found, dict) else {"default": found or ""}
    if "default" not in several or not all(isinstance(one, str) for one in several.values()):
        raise DataError("its chat_template is no text, and not several with one called default")


def _refuse_what_is_elsewhere(folder: Path) -> None:
    """What a link leads to would be published as the model's own; reading a pipe has no end. The
    hub's cache has its files in `blobs`, two folders up."""
    home = Path(os.path.realpath(folder))
    inside = home, home.parent.parent / "blobs"
    for path in sorted({*folder.iterdir(), *folder.glob("*/*")}):
        target = Path(os.path.realpath(path))
        is_inside = any(target.is_relative_to(place) for place in inside)
        if path.suffix in WEIGHTS or not target.exists():
            continue
        if not (is_inside and (target.is_file() or target.is_dir())):
            raise DataError(
                f"{one_line(path.relative_to(folder), 80)} is no file of the model but leads "
                "elsewhere; put the file itself there"
            )


def _harmless(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without what could name a file."""
    return {key: value for key, value in config.items() if _is_harmless(key, value)}


def _is_harmless(key: str, value: object) -> bool:
    if key.endswith("_token") or key in NESTED:
        return True
    if isinstance(value, str):
        return key in TEXTS
    return value is None or isinstance(value, bool | int | float)
