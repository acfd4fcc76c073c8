"""What lies in a folder, and names that must not get into one."""

from pathlib import Path

HOSTILE_NAMES = [
    "../up",
    "a/../../up",
    "/absolute",
    "a//b",
    "a/./b",
    "new\nline",
    "nul\0",
    "back\\slash",
    "x" * 256,
    "",
    "\ud800",
]


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of every file below `folder`, by its path there."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}
