"""The scratch folder is one user's: what is read from it again is what this user wrote there."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import SettingsError
from trainer.runtime.log import one_line
from trainer.storage.files import disk_errors

PRIVATE = 0o700
_NO_PLACE = (errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTSUP)


def take_scratch(folder: Path) -> None:
    """Make `folder`, if it has to be made or lies in one for everybody, as /tmp, for nobody else.

    Any other keeps its mode, a volume that is mounted there too. Raises SettingsError where
    another user has put something there: in a folder for everybody, a name can be taken first.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(PRIVATE)
    except OSError as error:  # of all others whoever writes to it says what is wrong
        if error.errno in _NO_PLACE:
            raise SettingsError(
                f"QLORA_SCRATCH_DIR={one_line(folder, 80, '…')}: no folder can be made there "
                f"({error.strerror}); choose another"
            ) from None
    if not folder.is_dir():
        return
    with disk_errors(folder):
        for path in _of_others(folder):
            raise SettingsError(
                f"QLORA_SCRATCH_DIR={folder}: {path} belongs to user {path.lstat().st_uid}; choose "
                "a folder of your own"
            )
        is_mine = folder.stat().st_uid == os.geteuid() and not os.path.ismount(folder)
        if is_mine and _is_for_all(folder.parent):
            folder.chmod(PRIVATE)


def _of_others(folder: Path) -> Iterator[Path]:
    """Where anybody could have put it: `folder` itself, or what lies in it."""
    if _is_for_all(folder.parent) and not os.path.ismount(folder) and not _is_trusted(folder):
        yield folder
    if _is_for_all(folder):
        yield from (path for path in folder.iterdir() if not _is_trusted(path))


def _is_for_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IWOTH)


def _is_trusted(path: Path) -> bool:
    """A link is judged by who made it."""
    return path.lstat().st_uid in (0, os.geteuid())
