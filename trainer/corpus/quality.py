"""What a corpus holds more than once.

Exact copies, white space aside, are dropped of every kind. Near copies are looked for among
documents only, by the share of five-word runs that two of them have in common (MinHash, Broder
1997): two questions that differ in one number are two questions.
"""

from enum import Enum

from trainer.corpus.examples import Example, Text, digest

NEAR = 0.85  # of the five-word runs of both; two unrelated documents share none
LEAST_WORDS = 50

_RUN_WORDS = 5
_COMPARED_CHARS = 400_000
_PERMUTATIONS = 128
_BANDS = 16  # candidates are those that agree in one band of 8: 99 of 100 that share 0.85


class Copy(Enum):
    """Whether an example was there before."""

    NO = "no"
    EXACT = "exact"
    NEAR = "near"


class Seen:
    """Examples that were already taken."""

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._near: _NearCopies | None = None

    def add(self, example: Example) -> Copy:
        """Whether `example` is a copy; it is remembered if it is none."""
        key = digest(tuple(" ".join(part.split()) for part in example.parts))
        if key in self._exact:
            return Copy.EXACT
        self._exact.add(key)
        if isinstance(example, Text):
            self._near = self._near or _NearCopies()
            if self._near.holds_or_adds(example.text):
                return Copy.NEAR
        return Copy.NO


class _NearCopies:
    def __init__(self) -> None:
        from rensa import RMinHashLSH

        self._index = RMinHashLSH(NEAR, _PERMUTATIONS, _BANDS)
        self._documents: list[tuple[object, int]] = []

    def holds_or_adds(self, text: str) -> bool:
        from rensa import RMinHash

        words = text[:_COMPARED_CHARS].casefold().split()
        if len(words) < LEAST_WORDS:
            return False
        runs = zip(*(words[start:] for start in range(_RUN_WORDS)), strict=False)
        sketch = RMinHash(num_perm=_PERMUTATIONS, seed=42)
        sketch.update([" ".join(run) for run in runs])
        for at in self._index.query(sketch):
            other, length = self._documents[at]
            if _alike(len(text), length) and sketch.jaccard(other) >= NEAR:
                return True
        self._index.insert(len(self._documents), sketch)
        self._documents.append((sketch, len(text)))
        return False


def _alike(length: int, other: int) -> bool:
    return min(length, other) >= NEAR * max(length, other)
