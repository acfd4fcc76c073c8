"""Files are whole or absent, and a full disk is named."""

import io
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import JobError, NotAllowedError
from trainer.storage import FolderStore, files
from trainer.storage.files import only_process


def test_a_big_chunk_is_written_in_small_pieces(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Recorder(io.BytesIO):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return super().write(data)

    target, data = Recorder(), os.urandom(3 * files.PIECE_BYTES + 5)
    assert files.copy([data, b"", b"x"], target) == (len(data) + 1, sha256(data + b"x").hexdigest())
    assert target.getvalue() == data + b"x"
    assert max(sizes) == files.PIECE_BYTES


def test_a_full_disk_is_named_with_its_free_space(tiny_disk: Path) -> None:
    with pytest.raises(JobError, match=r"No space left on device, 0\.\d MiB free") as caught:
        FolderStore(tiny_disk).write("a", bytes(1 << 20))
    assert caught.value.exit_code == 1
    assert list(tiny_disk.iterdir()) == []


def test_a_disk_that_fills_while_a_file_is_copied_to_it_is_the_one_that_is_named(
    tiny_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(bytes(1 << 20))
    with pytest.raises(JobError, match=f"{tiny_disk}/a: No space left on device"):
        FolderStore(tiny_disk).upload(tmp_path / "weights", "a")


def put_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def taking(folder: Path) -> None:
    with only_process(folder):
        pass


@pytest.mark.parametrize("put", [lambda path, target: path.symlink_to(target), put_pipe])
@pytest.mark.parametrize(
    ("take", "name"),
    [
        (taking, "lock"),
        (
            lambda folder: FolderStore(folder).update("latest.json", lambda _: b"{}"),
            ".part-latest.json.lock",
        ),
    ],
)
def test_a_link_or_a_pipe_in_place_of_a_lock_is_named_and_led_nowhere(
    take: Callable[[Path], None], name: str, put: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    (tmp_path / "of the user").write_text("27 bytes that must not go")
    (folder := tmp_path / "shared").mkdir()
    put(folder / name, tmp_path / "of the user")
    with pytest.raises(NotAllowedError, match=f"{name}: is a link, a pipe or .*; move it away"):
        take(folder)
    assert (tmp_path / "of the user").read_text() == "27 bytes that must not go"
