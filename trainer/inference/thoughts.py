"""An answer as it is generated, without the thought in front of it."""

from collections.abc import Iterable, Iterator


def without_thought(pieces: Iterable[str], closing: str) -> Iterator[str]:
    """`pieces` of an answer behind `closing`, which ends its thought; all of them where that is
    empty or does not come."""
    held, is_open = "", bool(closing)
    for piece in pieces:
        held += piece
        if is_open and closing in held:
            held, is_open = held.partition(closing)[2].lstrip(), False
        if not is_open and held:
            yield held
            held = ""
    if held:
        yield held
