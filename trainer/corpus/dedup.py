"""What a corpus holds more than once.

Exact copies, white space aside, are dropped of every kind. Near copies are looked for among
documents only, by the share of five-word runs that two of them have in common (MinHash, Broder
1997), and only where their numbers are the same: two data sheets that differ in one figure are two.

An example is known by its signature: 16 bytes, and 512 more for a document, which stay on disk.
"""

import hashlib
import mmap
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.examples import Example, Text

NEAR = 0.85  # of the five-word runs of both; two unrelated documents share none
LEAST_WORDS = 50
PERMUTATIONS = 128

_RUN_WORDS = 5
_NUMBER = re.compile(r"\d+")
# How digits of other scripts begin in UTF-8: Arabic, Persian, Devanagari, Bengali, full width.
_OTHER_DIGITS = (b"\xd9", b"\xdb", b"\xe0\xa5", b"\xe0\xa7", b"\xef\xbc")
_COMPARED_BYTES = 400_000
_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xD6E8FEB86659FD93)
_BANDS, _BAND_WORDS = (
    16,
    PERMUTATIONS // 16,
)  # candidates are those that agree in one band of 8: 99 of 100 that share 0.85
_ROWS_AT_ONCE = 1 << 14
_MOST_COMPARED = 256  # of those that agree in a band: pages of one template are all candidates

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


class Copy(IntEnum):
    """Whether an example was there before."""

    NO = 0
    EXACT = 1
    NEAR = 2


@dataclass(frozen=True)
class Signatures:
    """What is kept of n examples, m of them documents long enough to be compared.

    `exact` is [n, 2], `chars` [n]; `documents` [m] has the ascending numbers of those with
    `sketches` [m, 128].
    """

    exact: U64
    chars: npt.NDArray[np.uint32]
    documents: npt.NDArray[np.int64]
    sketches: U32


def signatures_of(examples: Sequence[Example], chars: Sequence[int]) -> Signatures:
    """Of `examples` [n], which are `chars` [n] characters long, in their order."""
    plain = [[" ".join(part.split()) for part in example.parts] for example in examples]
    runs = {
        at: found
        for at, (example, parts) in enumerate(zip(examples, plain, strict=True))
        if isinstance(example, Text) and len(found := _runs(parts[-1]))
    }
    numbers = [_numbers(plain[at][-1]) for at in runs]
    return Signatures(
        exact=np.frombuffer(b"".join(map(_exact, plain)), "<u8").reshape(-1, 2),
        chars=np.array(chars, np.uint32),
        documents=np.array(list(runs), np.int64),
        # sketches of texts with other numbers have nothing in common
        sketches=_sketches(list(runs.values())) ^ np.array(numbers, np.uint32)[:, None],
    )


def _exact(parts: list[str]) -> bytes:
    """16 bytes that two examples share if they differ in white space only; none holds a NUL."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def _runs(text: str) -> U64:
    """A hash of each five-word run of `text`, whose words are one space apart; none if it is short.

    It is a polynomial in the bytes of the run, so all of them come from one running sum.
    """
    data = np.frombuffer(text.casefold().encode()[:_COMPARED_BYTES], np.uint8)
    spaces = np.flatnonzero(data == ord(" "))
    starts, ends = np.append(0, spaces + 1), np.append(spaces, len(data))
    if len(starts) < LEAST_WORDS:
        return np.empty(0, np.uint64)
    powers, inverses = _powers()
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(data * powers[: len(data)], out=sums[1:])
    first = starts[: 1 - _RUN_WORDS]
    runs: U64 = (sums[ends[_RUN_WORDS - 1 :]] - sums[first]) * inverses[first]
    return (runs ^ (runs >> np.uint64(32))) * _MIX


def _numbers(text: str) -> int:
    """A hash of the numbers of `text` in their order, 32 bits."""
    compared = text[:_COMPARED_BYTES]
    raw = compared.encode()
    if not any(begins in raw for begins in _OTHER_DIGITS):
        data = np.frombuffer(raw, np.uint8)
        is_digit = data - np.uint8(ord("0")) < 10  # what is below wraps around
        kept = is_digit.copy()  # and what stands behind each number, as a space
        kept[1:] |= is_digit[:-1]
        return zlib.crc32(np.where(is_digit, data, np.uint8(ord(" ")))[kept].tobytes())
    return zlib.crc32(" ".join(_NUMBER.findall(compared)).encode())


@cache
def _powers() -> tuple[U64, U64]:
    """Of an odd number and of its inverse modulo 2**64, each [_COMPARED_BYTES + 1]."""
    bases = _BASE, pow(_BASE, -1, 1 << 64)
    columns = [np.full(_COMPARED_BYTES + 1, base, np.uint64) for base in bases]
    for column in columns:
        column[0] = 1
    return np.cumprod(columns[0]), np.cumprod(columns[1])


def _sketches(runs: Sequence[U64]) -> U32:
    """MinHash of each set of `runs` [m, 128]."""
    from rensa import RMinHash

    if not runs:
        return np.empty((0, PERMUTATIONS), np.uint32)
    ends = np.cumsum([0, *map(len, runs)]).astype(np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(runs), ends, PERMUTATIONS, 42
    ).to_rows()
    return np.array(rows, np.uint32)


def copies(signatures: Signatures, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """A `Copy` for each example [n]. Of several that are alike the first is none."""
    found = np.full(len(signatures.exact), Copy.NO, np.uint8)
    found[_exact_copies(signatures.exact, usable)] = Copy.EXACT
    found[_near_copies(signatures, usable & (found == Copy.NO))] = Copy.NEAR
    return found


def _exact_copies(exact: U64, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    numbers = np.flatnonzero(usable)
    order = numbers[np.argsort(exact[numbers, 0], kind="stable")]
    same = (exact[order[1:]] == exact[order[:-1]]).all(axis=1)
    copied: npt.NDArray[np.int64] = order[1:][same]
    return copied


def shared(signatures: Signatures, others: Signatures) -> npt.NDArray[np.bool_]:
    """Which of `others` [n] are copies or near copies of something in `signatures`."""
    found = np.isin(others.exact[:, 0], signatures.exact[:, 0])
    index = _BandIndex(signatures)
    wanted = _all_bands(others.sketches, np.arange(len(others.sketches)))
    for start in range(0, len(signatures.sketches), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(signatures.sketches)))
        bands = _bands(signatures.sketches[rows])
        pairs = zip(bands.T, wanted.T, strict=True)
        agree = np.any([np.isin(mine, theirs) for mine, theirs in pairs], axis=0)
        for row in rows[agree].tolist():
            index.add(row)
    for row, number in enumerate(others.documents.tolist()):
        if index.holds_near(np.array(others.sketches[row]), int(others.chars[number])):
            found[number] = True
    return found


def _near_copies(signatures: Signatures, usable: npt.NDArray[np.bool_]) -> list[int]:
    """Documents that are close to an earlier one which is no near copy itself.

    Only those that agree with another in a whole band are looked at one by one: few are.
    """
    rows = np.flatnonzero(usable[signatures.documents])
    agree = np.zeros(len(rows), bool)
    for at in range(_BANDS):
        band = _band_of_all(signatures.sketches, rows, at)
        ordered = np.sort(band)
        agree |= np.isin(band, ordered[1:][ordered[1:] == ordered[:-1]])
    index = _BandIndex(signatures)
    found = []
    for row in rows[agree].tolist():
        number = int(signatures.documents[row])
        if index.holds_near(np.array(signatures.sketches[row]), int(signatures.chars[number])):
            found.append(number)
        else:
            index.add(row)
    return found


class _BandIndex:
    """Documents by the bands of their sketches."""

    def __init__(self, signatures: Signatures) -> None:
        self._signatures = signatures
        self._rows: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]

    def add(self, row: int) -> None:
        """The document with the sketch `row`."""
        for at, band in enumerate(_bands(self._signatures.sketches[row][None])[0].tolist()):
            alike = self._rows[at].setdefault(band, [])
            if len(alike) < _MOST_COMPARED:
                alike.append(row)

    def holds_near(self, sketch: U32, chars: int) -> bool:
        """Whether a document with this `sketch` [128] and length nearly repeats one of these."""
        bands = enumerate(_bands(sketch[None])[0].tolist())
        rows = sorted({row for at, band in bands for row in self._rows[at].get(band, ())})
        if not rows:
            return False
        shared = (self._signatures.sketches[rows] == sketch).mean(axis=1)
        lengths = self._signatures.chars[self._signatures.documents[rows]].astype(np.float64)
        alike = np.minimum(lengths, chars) >= NEAR * np.maximum(lengths, chars)
        return bool(((shared >= NEAR) & alike).any())


def _all_bands(sketches: U32, rows: npt.NDArray[np.int64]) -> U64:
    bands = np.empty((len(rows), _BANDS), np.uint64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        bands[start : start + _ROWS_AT_ONCE] = _bands(sketches[rows[start : start + _ROWS_AT_ONCE]])
    return bands


def _band_of_all(sketches: U32, rows: npt.NDArray[np.int64], at: int) -> U64:
    """Band `at` of the sketches `rows` [m]."""
    words = slice(at * _BAND_WORDS, (at + 1) * _BAND_WORDS)
    found = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        found[start : start + len(some)] = _hashed(sketches[some, words])
        _let_go(sketches)
    return found


def _let_go(array: npt.NDArray[Any]) -> None:
    """What is mapped from a file counts as memory of this process once it was looked at."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _bands(sketches: U32) -> U64:
    """A hash of each band of each sketch [m, 16]."""
    return _hashed(sketches.reshape(len(sketches), _BANDS, _BAND_WORDS))


def _hashed(words: U32) -> U64:
    """FNV-1a over the last axis of `words`."""
    found = np.full(words.shape[:-1], 0xCBF29CE484222325, np.uint64)
    for word in np.moveaxis(words, -1, 0):
        found = (found ^ word) * np.uint64(0x100000001B3)
    return found
