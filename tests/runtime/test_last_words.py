"""The last words of a process: what nobody foresaw is a sentence with the next step too."""

import errno

import pytest

from trainer.errors import JobError, NotAllowedError, SettingsError
from trainer.runtime.last_words import unexpected


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
        (ValueError("of\nmany  lines"), JobError, "unexpected ValueError: of many lines"),
    ],
)
def test_what_nobody_foresaw_is_a_sentence_too(
    error: Exception, kind: type[JobError], words: str
) -> None:
    found = unexpected(error)
    assert type(found) is kind
    assert words in str(found)
