"""A file that somebody else may have put there: a pipe or a device in its place has no end, and a
link leads to any file of ours.

Whatever is read of a base, an adapter, a store or by a name that was given is opened here; so is
whatever is written at a name that can be guessed.
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


class InTheWayError(OSError):
    """A link, a pipe or a device where a file is written."""

    def __init__(self, path: Path) -> None:
        words = "is a link, a pipe or a device, and nothing is written there"
        super().__init__(errno.EINVAL, words, str(path))


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


def open_unfollowed(path: Path, how: int = os.O_RDWR, mode: int = 0o666) -> int:
    """A descriptor of the file at `path`, which is made where there is none. Nothing that is there
    is changed: no link is followed, no pipe waited for, no file emptied. Raises OSError,
    InTheWayError for what is no file."""
    how |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(path, how, mode)
    except OSError as error:
        # A pipe that nobody reads, or a socket, has no such device.
        if error.errno == errno.ENXIO or (error.errno == errno.ELOOP and path.is_symlink()):
            raise InTheWayError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise InTheWayError(path)
    return opened


def append(path: Path, data: bytes, *, synced: bool = False) -> None:
    """Raises OSError, InTheWayError."""
    with os.fdopen(open_unfollowed(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
        file.write(data)
        if synced:
            file.flush()
            os.fsync(file.fileno())


def write_over(path: Path, data: bytes) -> None:
    """Raises OSError, InTheWayError."""
    with os.fdopen(open_unfollowed(path, os.O_WRONLY), "wb") as file:
        file.truncate(0)
        file.write(data)
