"""Files on the local disk: written completely or not at all, with errors people can act on."""

import errno
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trainer.errors import DataError, DoesNotFitError, JobError, NotAllowedError, SettingsError
from trainer.runtime.regular_files import (
    InTheWayError,
    NotAFileError,
    open_regular,
    open_unfollowed,
)
from trainer.storage.buffers import Bytes

log = logging.getLogger(__name__)

PART = ".part-"
CHUNK_BYTES = 1 << 20
# For a write of more at once Linux takes larger pages for its cache, memory that a virtual machine
# may have given back to its host: each gigabyte then costs seconds instead of tenths.
PIECE_BYTES = 64 << 10
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
LOCK_S = 30.0  # a holder that is frozen for longer is not waited for
MOST_RACES = 100


@contextmanager
def staged(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """A file that appears at `path` complete and synced, or not at all.

    Not `synced` is for what is compared with its digest before it is used again.
    """
    part = part_of(path)
    with disk_errors(path):
        file = os.fdopen(_opened(part, os.O_WRONLY | os.O_EXCL), "wb")
        try:
            with file:
                yield file
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            part.replace(path)
            if synced:
                sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)


def create(path: Path, data: bytes) -> bool:
    """Write a new file in one step; False when `path` exists. Of many writers one gets True."""
    part = part_of(path)
    with staged(part) as file:
        file.write(data)
    return appear(part, path, lambda: _create_in_place(path, data))


def appear(part: Path, path: Path, without_links: Callable[[], bool]) -> bool:
    """Give the file at `part`, beside it, the name `path` in one step; False when that is taken.
    On a disk without hard links that is done by `without_links`."""
    with disk_errors(path):
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            return without_links()
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` against others who lock it; the lock dies with its process and leaves no file.

    Goes on without the lock on a disk that has none, and when it is not free within LOCK_S.
    """
    lock = path.with_name(f"{PART}{path.name}.lock")
    with disk_errors(path), _taken(lock):
        yield


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; a second one waits. The lock dies with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with disk_errors(path):
        lock = open_unfollowed(path, mode=0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process works in %s; waiting for it", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def copy(chunks: Iterable[Bytes], target: BinaryIO) -> tuple[int, str]:
    """Write all chunks; bytes written and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), PIECE_BYTES):
            target.write(view[start : start + PIECE_BYTES])
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def chunks_of(path: Path) -> Iterator[bytes]:
    """An error of reading names `path`; one of whoever takes the chunks stays theirs."""
    with disk_errors(path), open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def sha256_of(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds(path: Path, size: int, sha256: str) -> bool:
    """Whether `path` is a file of exactly this content."""
    with disk_errors(path):
        return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256


def refuse_without_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise DoesNotFitError when `folder` cannot take that many bytes more."""
    free = _free_bytes(folder / "any")
    if needed_bytes > free:
        raise DoesNotFitError(
            f"{what}: {needed_bytes / 2**20:,.1f} MiB are to be fetched and {folder} has "
            f"{free / 2**20:,.1f} MiB free; make room or set QLORA_SCRATCH_DIR to a larger volume"
        )


def sweep(folder: Path, older_than_s: float = 0) -> None:
    """Remove the parts that killed writers left; another process may own the fresh ones."""
    now = time.time()
    # Not rglob: it fails where another process removes a folder under it.
    for inside, _, names in os.walk(folder):
        for part in (Path(inside, name) for name in names if name.startswith(PART)):
            with suppress(OSError):
                if now - part.stat().st_mtime >= older_than_s:
                    part.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where its file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # another process removed what was in it, and it
        return
    try:
        with suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """OSError becomes a JobError that names `path`, the fact and the next step."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # boto3's timeouts and TLS failures are OSErrors too
            raise
        raise _explained(error, path) from error


def _explained(error: OSError, path: Path) -> JobError:
    fact = f"{path}: {error.strerror or error}"
    if isinstance(error, NotAFileError):
        return DataError(f"{fact}; put the file itself there")
    if isinstance(error, InTheWayError):
        return NotAllowedError(f"{error.filename}: {error.strerror}; move it away")
    if error.errno == errno.ELOOP:
        return SettingsError(f"{fact[-400:]}; a link there leads back to itself; remove it")
    if error.errno == errno.ENAMETOOLONG:
        return SettingsError(f"{fact[-400:]}; no disk has such a name, choose another")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free_mib = _free_bytes(path) / 2**20
        return JobError(f"{fact}, {free_mib:.1f} MiB free; make room or use a larger volume")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotAllowedError(f"{fact}; give user {os.geteuid()} access to it")
    if error.errno == errno.ENOENT:
        return DataError(f"{fact}; check the path and that its volume is mounted")
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return SettingsError(f"{fact}; a file and a folder cannot share a name, choose another")
    return JobError(f"{fact}; check the disk it is on")


def _free_bytes(path: Path) -> int:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(nearest).free


def part_of(path: Path) -> Path:
    """A name beside `path` for what is not yet whole."""
    return path.with_name(PART + secrets.token_hex(8))


def _opened(path: Path, how: int) -> int:
    """For writing, in a folder that another process may remove while it is empty."""
    for _ in range(MOST_RACES):
        with suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return open_unfollowed(path, how)
    path.parent.mkdir(parents=True, exist_ok=True)
    return open_unfollowed(path, how)


@contextmanager
def _taken(lock: Path) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_S
    while True:
        with os.fdopen(_opened(lock, os.O_RDWR), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:  # this disk has no locks
                free = True
            else:
                free = _is_at(file, lock)  # else its last holder removed it meanwhile
            if free or time.monotonic() > deadline:
                try:
                    yield
                finally:
                    if free:
                        lock.unlink(missing_ok=True)
                return
        time.sleep(0.01)


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    return False


def _create_in_place(path: Path, data: bytes) -> bool:
    """For file systems without hard links, such as a mounted bucket."""
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True
