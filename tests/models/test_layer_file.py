"""Layers in a file, read beside what the caller does."""

import errno
import os
from pathlib import Path

import pytest
import torch

from trainer.errors import JobError
from trainer.models.layer_file import LayerFile


def test_what_is_written_is_read_in_order_and_what_is_to_follow_is_done_then(
    tmp_path: Path,
) -> None:
    file = LayerFile(tmp_path / "new", 3 * 2**16)
    file.bytes.copy_(torch.arange(len(file.bytes)) % 251)
    done: list[str] = []
    into = [torch.zeros(2**16, dtype=torch.uint8) for _ in range(3)]
    for number, tensor in enumerate(into):
        part = range(number * 2**16, (number + 1) * 2**16)
        reading = file.read(
            part,
            tensor,
            range(2**16),
            first=lambda n=number: done.append(f"before {n}"),
            then=lambda n=number: done.append(f"{n}: {bool(into[n].any())}"),
        )
    reading.result()
    assert torch.equal(torch.cat(into), file.bytes)
    assert done == [text for n in range(3) for text in (f"before {n}", f"{n}: True")]
    assert not list((tmp_path / "new").iterdir())


def test_a_disk_without_room_is_told(tiny_disk: Path) -> None:
    with pytest.raises(JobError, match="MiB free; make room or use a larger volume"):
        LayerFile(tiny_disk, 2**20)


def test_a_file_that_was_cut_short_is_no_layer_of_zeros(tmp_path: Path) -> None:
    file = LayerFile(tmp_path, 4096)
    os.ftruncate(file._file.fileno(), 100)
    into = torch.zeros(4096, dtype=torch.uint8)
    nothing = {"first": lambda: None, "then": lambda: None}
    reading = file.read(range(4096), into, range(0), **nothing)
    with pytest.raises(JobError, match="shorter; check the disk"):
        reading.result()
    assert reading.exception().__cause__.errno == errno.EIO
