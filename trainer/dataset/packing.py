"""Sequences of tokens -> blocks of one length. No files and no GPU."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from trainer.labels import IGNORED
from trainer.tokenization.encode import Tokens, ids_of, labels_of

# Sequences that are packed together. More would fill no block better and take memory.
_PACKED_TOGETHER = 1 << 16

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """Several sequences and padding, each array int64 [max_length].

    Pass these three and no attention mask: transformers keeps attention inside a sequence
    because the positions start again at 0 with each.
    """

    input_ids: Int64
    labels: Int64
    position_ids: Int64


class Blocks(Sequence[Block]):
    """Blocks that are put together from their sequences when they are asked for.

    `tokens` may be larger than memory: it is mapped from a file. Sequence i of it is
    `tokens[starts[i] : starts[i] + lengths[i]]`, both [sequences]; they are kept, and put in the
    order of the blocks.
    """

    def __init__(
        self, tokens: Tokens, starts: Int64, lengths: Tokens, max_length: int, pad_id: int
    ) -> None:
        self._bounds = pack(starts, lengths, max_length)
        self._tokens, self._starts, self._lengths = tokens, starts, lengths
        self._max_length, self._pad_id = max_length, pad_id

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, at: int) -> Block: ...
    @overload
    def __getitem__(self, at: slice) -> list[Block]: ...
    def __getitem__(self, at: int | slice) -> Block | list[Block]:
        if isinstance(at, slice):
            return [self[n] for n in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        at %= len(self)
        found = range(self._bounds[at], self._bounds[at + 1])
        return _block([self._sequence(n) for n in found], self._max_length, self._pad_id)

    def _sequence(self, number: int) -> Tokens:
        start = self._starts[number]
        return self._tokens[start : start + self._lengths[number]]

    @property
    def padding_share(self) -> float:
        """Of all tokens, 0 to 1."""
        size = len(self) * self._max_length
        return 1 - int(self._lengths.sum()) / size if size else 0.0


@dataclass
class _OpenBins:
    """Blocks that are not full, by the room left in them; the least sufficient one in O(log n)."""

    rooms: list[int] = field(default_factory=list)  # sorted, distinct
    blocks: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def take(self, needed: int) -> tuple[int, int] | None:
        """(block, room) of the tightest block that has `needed` tokens left."""
        at = bisect_left(self.rooms, needed)
        if at == len(self.rooms):
            return None
        room = self.rooms[at]
        block = self.blocks[room].pop()
        if not self.blocks[room]:
            self.rooms.pop(at)
        return block, room

    def put(self, block: int, room: int) -> None:
        if not self.blocks[room]:
            insort(self.rooms, room)
        self.blocks[room].append(block)


def pack(starts: Int64, lengths: Tokens | Int64, max_length: int) -> Int64:
    """Best-fit decreasing: longest sequence first, each into the fullest block that takes it.

    Puts `starts` and `lengths` of the sequences in the order of the blocks, in place, for there may
    be millions; where each block begins among them and the last ends. Deterministic. No sequence is
    cut; blocks come longest content first, so shuffle them. Raises ValueError if a sequence is
    longer than `max_length`.
    """
    sizes = [np.zeros(1, np.int32)]
    for first in range(0, len(lengths), _PACKED_TOGETHER):
        part = slice(first, first + _PACKED_TOGETHER)
        order, blocks = _packed(lengths[part], max_length)
        starts[part], lengths[part] = starts[part][order], lengths[part][order]
        sizes.append(np.bincount(blocks).astype(np.int32))
    return np.cumsum(np.concatenate(sizes), dtype=np.int64)


def _packed(lengths: Tokens | Int64, max_length: int) -> tuple[Int64, npt.NDArray[np.int32]]:
    """(numbers of the sequences in the order of their blocks, the block of each), both [n]."""
    longest_first = np.argsort(-lengths, kind="stable")
    taken = np.empty(len(lengths), np.int32)
    bins = _OpenBins()
    count = 0
    for at, number in enumerate(longest_first):
        length = int(lengths[number])
        if length > max_length:
            raise ValueError(f"a sequence of {length} tokens does not fit a block of {max_length}")
        found = bins.take(length)
        if found is None:
            found = count, max_length
            count += 1
        block, room = found
        taken[at] = block
        bins.put(block, room - length)
    by_block = np.argsort(taken, kind="stable")
    return longest_first[by_block], taken[by_block]


def _block(sequences: Iterable[Tokens], max_length: int, pad_id: int) -> Block:
    columns: dict[str, Any] = {
        "input_ids": np.full(max_length, pad_id, dtype=np.int64),
        "labels": np.full(max_length, IGNORED, dtype=np.int64),
        "position_ids": np.zeros(max_length, dtype=np.int64),
    }
    start = 0
    for tokens in sequences:
        end = start + len(tokens)
        columns["input_ids"][start:end] = ids_of(tokens)
        columns["labels"][start + 1 : end] = labels_of(tokens[1:])  # the first has no context
        columns["position_ids"][start:end] = np.arange(end - start)
        start = end
    columns["position_ids"][start:] = np.arange(max_length - start)
    return Block(**columns)


def trains_ends(blocks: Iterable[Block], ends: Sequence[int]) -> bool:
    """Whether a trained token of `blocks` is in `ends`: it ends an answer or a document."""
    return any(np.isin(block.labels[1:], list(ends)).any() for block in blocks)
