"""Object keys are other people's text: which of them may become a path below a folder."""

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice

from trainer.errors import DataError

KEY_BYTES = 1024  # what S3 allows
SEGMENT_BYTES = 255  # what Linux file systems allow
MOST_NAMED = 5


def refuse_unsafe(names: Iterable[str], where: str) -> None:
    """Raise DataError when a name cannot be a path below a folder."""
    _refuse(((name, fault(name)) for name in names), where)


def refuse_collisions(names: Iterable[str], where: str) -> None:
    """Raise DataError when two names would be one file on some disk."""
    _refuse(_collisions(names), where)


def fault(name: str) -> str:
    """Why `name` must not become a path; empty when it may."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    segments = name.split("/")
    if not {"", ".", ".."}.isdisjoint(segments):
        return "holds an empty, '.' or '..' part"
    longest = max(len(segment.encode()) for segment in segments)
    if len(encoded) > KEY_BYTES or longest > SEGMENT_BYTES:
        return "is too long for a path"
    return ""


def printable(uri: str, name: str) -> str:
    """The URI of an object for a message, on one line whatever its key holds."""
    text = uri + name
    return text if text.isprintable() else repr(text)


def _collisions(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(_folded(name), name)
        if twin is not name:
            yield name, f"is {twin!r} on a disk that folds case or Unicode forms"
    for name in seen.values():
        for parent in _parents(name):
            if _folded(parent) in seen:
                yield name, f"needs a folder where {seen[_folded(parent)]!r} is a file"


def _parents(name: str) -> list[str]:
    segments = name.split("/")
    return ["/".join(segments[:depth]) for depth in range(1, len(segments))]


def _folded(name: str) -> str:
    """Canonical caseless match, Unicode standard 3.13, definition D145."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _refuse(faults: Iterable[tuple[str, str]], where: str) -> None:
    found = [
        f"{name!r} {reason}" for name, reason in islice(filter(_has_reason, faults), MOST_NAMED)
    ]
    if found:
        raise DataError(f"{where}: {'; '.join(found)}; rename or remove it")


def _has_reason(named: tuple[str, str]) -> bool:
    return bool(named[1])
