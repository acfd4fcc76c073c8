"""What decides the content of a token cache: its folder is named by a digest of all of it.

Not by the run: starts with another learning rate, and other runs on the same data, use the cache
again. What is missing here would be worse than a second tokenising: a run on the wrong tokens.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpus import formats
from trainer.runs.library_versions import installed
from trainer.settings import Settings
from trainer.storage import Fetched

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The code that makes tokens of files, below trainer/: another version of it tokenises again.
CODE = ("labels.py", "corpus/*.py", "tokenization/*.py", "dataset/holdout.py")
# Beside the parsers: what renders, tokenises and compares. Another version of it does so too.
LIBRARIES = (*formats.LIBRARIES, "jinja2", "numpy", "rensa", "tokenizers", "transformers")
_TRAINER = Path(__file__).parent.parent


@dataclass(frozen=True)
class Software:
    """The sources and the versions of the libraries that make tokens of files."""

    code: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]


def installed_software(folder: Path = _TRAINER, patterns: Sequence[str] = CODE) -> Software:
    """That of this process; `patterns` are looked for below `folder`.

    Raises FileNotFoundError for a pattern without a file: a module that was moved would decide
    the tokens and no longer the key. A library that is not there is no failure: only some files
    need it.
    """
    code = tuple(path.read_text(encoding="utf-8") for path in source_files(folder, patterns))
    versions = tuple((name, installed(name)) for name in LIBRARIES)
    return Software(code, (("python", platform.python_version()), *versions))


def source_files(folder: Path = _TRAINER, patterns: Sequence[str] = CODE) -> list[Path]:
    """The files of all `patterns`, in order. Raises FileNotFoundError where one finds none."""
    found: set[Path] = set()
    for pattern in patterns:
        files = set(folder.glob(pattern))
        if not files:
            raise FileNotFoundError(
                f"{folder / pattern}: no such source, and it decides the tokens; "
                "name where it is now in CODE of trainer/tokenization/cache_key.py"
            )
        found |= files
    return sorted(found)


def cache_key(
    settings: Settings,
    files: Iterable[Fetched],
    tokenizer: "PreTrainedTokenizerBase",
    part: str,
    software: Software | None = None,
) -> str:
    """24 hex digits for `part` of the tokens of `files`; `software` is the installed one."""
    software = software or installed_software()
    decisive = {
        "part": part,
        "settings": [
            settings.max_length,
            settings.question_column,
            settings.answer_column,
            settings.text_column,
        ],
        "tokenizer": [
            tokenizer.backend_tokenizer.to_str(),
            tokenizer.chat_template,
            tokenizer.special_tokens_map,
        ],
        "code": software.code,
        "versions": software.versions,
    }
    digest = hashlib.sha256(json.dumps(decisive, default=str).encode())
    for file in files:  # one by one: there may be a million
        digest.update(json.dumps([file.name, file.sha256]).encode())
    return digest.hexdigest()[:24]
