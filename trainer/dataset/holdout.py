"""Which part of the data is held out: by key, or the end of a single document."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from trainer.corpus.examples import Heading, Text
from trainer.tokenization.chunking import text_boundary


def held_out(keys: npt.NDArray[np.uint64], share: float = 0.1) -> npt.NDArray[np.bool_]:
    """Which examples are held out, about `share` of them; `keys` are the first 64 bits of each.

    An example is held out when its key, read as a number in [0, 1), is below `share`: adding
    data moves no example to the other side. With two or more examples neither side is empty:
    the smallest key is held out, or the largest trained, where chance left nothing. A single
    example is trained and nothing is held out.
    """
    if len(keys) < 2:
        return np.zeros(len(keys), bool)
    held: npt.NDArray[np.bool_] = (keys / 2**64 < share) | (keys == keys.min())
    if held.all():
        held &= keys != keys.max()
    return held


def divide(document: Text, share: float = 0.1) -> tuple[Text, Text] | None:
    """(most of it, its end), divided at a paragraph, line or word; None where there is none."""
    text = document.text.strip()
    boundary = text_boundary(text, 0, round(len(text) * (1 - share)), near_share=1 / 8)
    head, tail = text[:boundary].strip(), text[boundary:].strip()
    if not head or not tail or not text[boundary - 1].isspace():
        return None
    begins = document.text.index(text)
    split = begins + len(text) - len(tail)
    return (
        Text(head, _moved([h for h in document.headings if h.at < split], -begins)),
        Text(tail, _moved([h for h in document.headings if h.at >= split], -split)),
    )


def _moved(headings: Iterable[Heading], by: int) -> tuple[Heading, ...]:
    return tuple(replace(heading, at=heading.at + by) for heading in headings)
