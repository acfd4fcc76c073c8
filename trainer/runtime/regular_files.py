"""A file that somebody else may have put there: a pipe or a device in its place has no end.

Whatever is read of a base, an adapter, a store or by a name that was given is opened here.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


class NotAFileError(OSError):
    """A pipe, a device, a socket or a folder where a file is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "is a folder, a pipe or a device and no file", str(path))


def open_regular(path: Path) -> BufferedReader:
    """The file at `path`, for reading bytes; links are followed. Raises OSError, NotAFileError at
    once for what is no file."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a device may do something already
        raise NotAFileError(path)
    # A pipe that came there meanwhile is not waited for.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise NotAFileError(path)
    return open(opened, "rb")  # noqa: PTH123 - of what is open already
