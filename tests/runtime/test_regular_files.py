"""Whatever reads a file that somebody else may have put there refuses at once what is none."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import DataError
from trainer.models.safetensors_files import StoredTensor, read_header
from trainer.runtime.env_file import read_env_file, write_env_file
from trainer.runtime.json_records import read_object
from trainer.runtime.regular_files import (
    InTheWayError,
    NotAFileError,
    append,
    open_regular,
    write_over,
)
from trainer.storage.files import chunks_of, holds, sha256_of
from trainer.storage.local import FolderStore


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, bind, lambda p: p.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_opened(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make(Path("odd"))
    with pytest.raises(NotAFileError, match="is a folder, a pipe or a device and no file"):
        open_regular(Path("odd"))


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"text"


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (read_object, NotAFileError),
        (sha256_of, NotAFileError),
        (lambda path: list(chunks_of(path)), DataError),
        (lambda path: holds(path, 0, ""), None),
        (lambda path: FolderStore(path.parent).read(path.name), DataError),
        (read_header, NotAFileError),
        (StoredTensor(Path(), "a", "F32", (1,), 0, 4), NotAFileError),
        (read_env_file, None),  # a shell's <(…) is one
    ],
)
def test_no_reader_waits_for_a_pipe(
    read: Callable[[Path], Any] | StoredTensor, error: type[Exception] | None, tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    if isinstance(read, StoredTensor):
        with pytest.raises(NotAFileError):
            StoredTensor(pipe, "a", "F32", (1,), 0, 4).read()
    elif error is None:
        assert not read(pipe)
    else:
        with pytest.raises(error, match="is a folder, a pipe or a device"):
            read(pipe)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: append(path, b"more"),
        lambda path: write_over(path, b"other"),
        lambda path: write_env_file(path, {"A": "1"}),
    ],
)
@pytest.mark.parametrize(
    "make", [os.mkfifo, bind, lambda p: p.symlink_to("kept"), lambda p: p.symlink_to("new")]
)
def test_no_writer_follows_a_link_or_waits_for_a_pipe(
    write: Callable[[Path], None],
    make: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kept").write_text("precious")
    make(Path("odd"))
    with pytest.raises(InTheWayError, match="is a link, a pipe or a device"):
        write(Path("odd"))
    assert Path("kept").read_text() == "precious" and not Path("new").exists()


def test_what_is_written_is_there_alone_or_behind_what_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    append(file, b"one ")
    append(file, b"two", synced=True)
    assert file.read_bytes() == b"one two"
    write_over(file, b"3")
    assert file.read_bytes() == b"3"
