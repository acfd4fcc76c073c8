"""Layers of a base in a file on the scratch disk, read ahead by a thread of its own."""

import errno
import mmap
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from trainer.storage.files import disk_errors


class LayerFile:
    """`size` bytes on the disk of `folder`, gone when this process is, however it ends.

    They are written through `bytes`, a mapping; of what they hold the kernel keeps in memory what
    nothing else needs. Raises JobError where the disk has no room.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._named = folder / "layers"  # in sentences
        with disk_errors(self._named):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # for as long as this
            os.posix_fallocate(self._file.fileno(), 0, size)
            self.bytes = torch.frombuffer(mmap.mmap(self._file.fileno(), size), dtype=torch.uint8)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="layers")

    def read(
        self,
        part: range,
        into: torch.Tensor,
        following: range,
        *,
        first: Callable[[], None],
        then: Callable[[], None],
    ) -> "Future[None]":
        """Beside whatever the caller does: `first`, then the bytes of `part` in `into`, a tensor on
        the CPU, then `then`; and the disk may begin with the `following` ones. One call after the
        other; the future raises JobError where the disk fails."""
        return self._thread.submit(self._read, part, into, following, first, then)

    def _read(
        self,
        part: range,
        into: torch.Tensor,
        following: range,
        first: Callable[[], None],
        then: Callable[[], None],
    ) -> None:
        first()
        with disk_errors(self._named):
            self._expect(part)
            room, done = memoryview(into.numpy().data), 0
            while done < len(room):
                got = os.preadv(self._file.fileno(), [room[done:]], part.start + done)
                if not got:
                    raise OSError(errno.EIO, "the file of layers has become shorter")
                done += got
            then()
            self._expect(following)

    def _expect(self, part: range) -> None:
        """The kernel may read it at once, as deep as the disk can."""
        if part:  # no bytes would be all of the file
            descriptor = self._file.fileno()
            os.posix_fadvise(descriptor, part.start, len(part), os.POSIX_FADV_WILLNEED)
