"""The last words of a process: what nobody foresaw is a sentence with the next step too."""

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
from support.imports import FILES
from support.jobs import run_command

from trainer.errors import DataError, JobError, NotAllowedError, SettingsError
from trainer.models.locate import BUILTIN
from trainer.runtime.last_words import shown, unexpected
from trainer.runtime.regular_files import NotAFileError


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x"), NotAllowedError, "/x: Read-only"),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), SettingsError, "a file is in the way"),
        (OSError(errno.ENOSPC, "No space left on device"), JobError, "a disk is full"),
        (RuntimeError("PytorchStreamWriter: No space left"), JobError, "a disk is full"),
        (Exception("No space left on device (os error 28)"), JobError, "a disk is full"),
        (Exception("Disk quota exceeded (os error 122)"), JobError, "a disk is full"),
        (Exception("Read-only file system (os error 30)"), NotAllowedError, "(os error 30); give"),
        (NotAFileError(Path("/x")), DataError, "/x: is a folder, a pipe or a device"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 999), SettingsError, "choose ano"),
        (OSError(errno.ELOOP, "Too many", "/x"), SettingsError, "/x: Too many; a link there leads"),
        (ValueError("of\nmany  lines"), JobError, "unexpected ValueError: of many lines"),
    ],
)
def test_what_nobody_foresaw_is_a_sentence_too(
    error: Exception, kind: type[JobError], words: str
) -> None:
    found = unexpected(error)
    assert type(found) is kind
    assert words in str(found)


def test_a_tokenizer_that_panics_is_a_base_that_cannot_be_used(tmp_path: Path) -> None:
    """What the library raises is no Exception."""
    base = shutil.copytree(BUILTIN / "tiny", tmp_path / "base")
    made = json.loads((base / "tokenizer.json").read_text())
    made["normalizer"] = {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 20}
    (base / "tokenizer.json").write_text(json.dumps(made))
    ended = run_command(tmp_path, "inspect", BASE_MODEL=str(base))
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: the tokenizer of the base fails (index out of bounds: ")
    assert "Traceback" not in ended.stderr


def test_an_error_is_shown_without_commands_to_a_terminal_and_without_secrets() -> None:
    refused = DataError("it says \x1b]52;c;cHduZWQ=\x07 sorry of https://me:s3cr3t@host/\u202ea")
    assert shown(refused) == "it says \ufffd]52;c;cHduZWQ=\ufffd sorry of https://***@host/\ufffda"


def test_no_error_is_said_otherwise() -> None:
    said = re.compile(r"(?:echo|secho|print)\([^\n]*\{error\}")
    found = [path for path in FILES if said.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in found] == ["launch.py"]  # of torchrun's own arguments
