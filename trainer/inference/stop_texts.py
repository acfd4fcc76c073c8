"""An answer as it is generated, up to a text that ends it."""

from collections.abc import Generator, Iterable, Sequence


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Generator[str, None, bool]:
    """`pieces` up to the first of `stops`, which is no part of them; returns whether one came."""
    held = ""
    for piece in pieces:
        held += piece
        if found := [at for stop in stops if (at := held.find(stop)) >= 0]:
            if held := held[: min(found)]:
                yield held
            return True
        keep = max((_begun(held, stop) for stop in stops), default=0)
        if ready := held[: len(held) - keep]:
            yield ready
            held = held[len(ready) :]
    if held:
        yield held
    return False


def _begun(text: str, stop: str) -> int:
    """How many of the last characters of `text` may be the first of `stop`."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )
