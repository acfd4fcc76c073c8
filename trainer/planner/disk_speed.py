"""What the scratch disk has room for, and how fast it reads, tried for a moment."""

import os
import shutil
import tempfile
import time
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
BESIDE_BYTES = 4 * 2**30  # checkpoints, and what else a run writes
TRIED_BYTES, PIECE = 2**28, 2**23


def free_disk_bytes(folder: Path) -> int:
    """Bytes of the disk that `folder` is on, or will be, which layers may take; 0 where that is no
    disk but memory."""
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if _type_of_mount(nearest) in ("tmpfs", "ramfs"):
        return 0
    return max(0, shutil.disk_usage(nearest).free - BESIDE_BYTES)


def _type_of_mount(folder: Path) -> str:
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == name:
            return fields[fields.index("-") + 1]
    return ""


def disk_bytes_per_s(folder: Path) -> int:
    """Of reading a file from its begin to its end, past what the kernel keeps of it. Raises
    OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    piece = bytearray(os.urandom(PIECE))
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(TRIED_BYTES // PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begin = time.perf_counter()
        while file.readinto(piece):
            pass
        return int(TRIED_BYTES / (time.perf_counter() - begin))
