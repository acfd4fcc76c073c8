"""What of a prompt has to be read: not a beginning that another row holds already, whose keys and
values are copied. System prompts, passages and the frame of a chat are such beginnings."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile

from trainer.engine.prompt import Prompt

LEAST_SHARED = 16  # tokens of a beginning that is worth copying
LEAST_SAVED = (
    1024  # tokens of all prompts that are worth a pass more on a GPU, which waits for each
)
SLACK = 16  # tokens that are read again where that spares waiting for another row

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """The prompt `at` its place among those that are admitted is read into `row` but for its first
    `shared` tokens, which `source` holds."""

    at: int
    row: int
    ids: Ids
    shared: int = 0
    source: int = -1

    @property
    def rest(self) -> Ids:
        return self.ids[self.shared :]


class HeldPrompts:
    """The prompts whose keys and values the rows hold, running or not, made by the same weights."""

    def __init__(self, least_saved: int) -> None:
        self._least_saved = least_saved
        self._by_row: dict[int, Ids] = {}
        self._tuned = True

    def move(self, source: int, target: int) -> None:
        """A row has been copied over another."""
        if source in self._by_row:
            self._by_row[target] = self._by_row[source]

    def readings(
        self, prompts: Sequence[Prompt], first: int, *, tuned: bool
    ) -> list[list[Reading]]:
        """How prompts are read into the rows from `first` on: one list after the other, as a later
        one copies what an earlier one has read."""
        if tuned != self._tuned:
            self._by_row.clear()
        self._tuned = tuned
        given = [tuple(prompt.ids) for prompt in prompts]
        own = {first + at: self._by_row.pop(first + at, ()) for at in range(len(given))}
        found = _shared(given, first, own, self._by_row)
        if sum(reading.shared for reading, _ in found) < self._least_saved:
            found = [(Reading(at, first + at, ids), 0) for at, ids in enumerate(given)]
        self._by_row |= {reading.row: reading.ids for reading, _ in found}
        last = max((wave for _, wave in found), default=-1)
        return [[reading for reading, at in found if at == wave] for wave in range(last + 1)]


@dataclass(frozen=True)
class _Source:
    row: int
    wave: int  # in which it is read; -1 for one that is there already
    shared: int = 0
    origin: "_Source | None" = None


def _shared(
    given: Sequence[Ids], first: int, own: dict[int, Ids], held: dict[int, Ids]
) -> list[tuple[Reading, int]]:
    """Each prompt with the wave in which it is read. In the order of their tokens, whoever has the
    most in common with a prompt stands next to it."""
    known = sorted(((ids, _Source(row, -1)) for row, ids in held.items()), key=lambda pair: pair[0])
    found = []
    for at, ids in enumerate(given):
        row = first + at
        place = bisect(known, ids, key=lambda pair: pair[0])
        near = known[max(place - 1, 0) : place + 1]
        choices = [(_common(ids, other), source) for other, source in near]
        choices.append((_common(ids, own[row]), _Source(row, -1)))
        shared, source = max(choices, key=lambda choice: choice[0])
        while source.origin is not None and min(shared, source.shared) + SLACK >= shared:
            shared, source = min(shared, source.shared), source.origin
        if shared < LEAST_SHARED:
            made = Reading(at, row, ids)
            mine = _Source(row, 0)
        else:
            made = Reading(at, row, ids, shared, source.row)
            mine = _Source(row, source.wave + 1, shared, source)
        known.insert(place, (ids, mine))
        found.append((made, mine.wave))
    return found


def _common(ids: Ids, other: Ids) -> int:
    """How many first tokens are the same; the last of `ids` is read in any case."""
    most = min(len(ids) - 1, len(other))
    if ids[:most] == other[:most]:
        return most
    return sum(1 for _ in takewhile(lambda at: ids[at] == other[at], count()))
