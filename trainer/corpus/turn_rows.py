"""Tables with one turn a row -> one record a conversation.

conversation_id, role, content      rows of one id, by `turn` or by a time where there is one
turn, role, content                 the number starts again with each conversation
role, content                       each conversation begins with a system turn
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from itertools import chain
from typing import Any

from trainer.corpus.columns import Columns, folded, layouts
from trainer.corpus.conversations import (
    CONTENT_KEYS,
    MOST_TURNS,
    SPEAKER_KEYS,
    parsed,
    role_of,
)
from trainer.corpus.examples import (
    NextTable,
    Notice,
    SkippedRecord,
    Unusable,
    json_type,
    printable,
)
from trainer.corpus.moments import order

Row = tuple[str, Any] | SkippedRecord | Notice

_IDS = (
    *("conversation_id", "conversation id", "conversationid", "conv_id", "conversation"),
    *("dialogue_id", "dialog_id", "dialogue", "dialog", "session_id", "session", "chat_id", "chat"),
    *("thread_id", "thread", "ticket_id", "ticket", "case_id"),
)
_NUMBERS = ("turn", "turn_id", "turn_index", "turn_idx", "turn_number", "message_index", "order")
_TIMES = (
    *("timestamp", "datetime", "date_time", "created_at", "createdat", "created", "create_time"),
    *("created_time", "sent_at", "sentat", "sent", "ts", "zeitpunkt"),
)
_DAYS, _CLOCKS = ("date", "datum"), ("time", "zeit", "uhrzeit")
_INDICES = ("index", "idx", "position", "seq", "sequence", "no", "nr", "number", "step")


@dataclass(frozen=True)
class TurnColumns:
    """Which columns of a table of turns are what; an empty one is not there. `places` say where a
    turn stands among those of its conversation, the two of a date and a time together."""

    speaker: str
    words: str
    conversation: str = ""
    number: str = ""
    places: tuple[str, ...] = ()


def turn_columns(names: Iterable[str], columns: Columns) -> TurnColumns | None:
    """None where the columns make records by themselves, or the user named some."""
    by_name = {folded(name): name for name in reversed(list(names))}
    known_forms = {layout.kind for layout in layouts(by_name.values(), columns)}
    if columns.all_given() or known_forms & {"completion", "answer"}:
        return None

    def first(known: Iterable[str]) -> str:
        return next((by_name[name] for name in known if name in by_name), "")

    speaker, words, conversation, number = map(first, (SPEAKER_KEYS, CONTENT_KEYS, _IDS, _NUMBERS))
    if not speaker or not words:
        return None
    day_and_time = tuple(filter(None, map(first, (_DAYS, _CLOCKS))))
    ways = (number,), (first(_TIMES),), day_and_time, (first(_INDICES),)
    places = next((way for way in ways if any(way)), ())
    return TurnColumns(speaker, words, conversation, number, places)


def joined(rows: Iterable[Row | NextTable], columns: Columns) -> Iterator[Row]:
    """`rows` of one or more tables; of a table whose first row is a turn the conversations that
    they are. Raises Unusable, also late."""
    tables = _Tables(rows)
    while not tables.are_over:
        yield from _joined(tables.next(), columns)


class _Tables:
    """Takes rows up to the next table, one table after the other."""

    def __init__(self, rows: Iterable[Row | NextTable]) -> None:
        self._rows = iter(rows)
        self.are_over = False

    def next(self) -> Iterator[Row]:
        for row in self._rows:
            if isinstance(row, NextTable):
                return
            yield row
        self.are_over = True


def _joined(found: Iterator[Row], columns: Columns) -> Iterable[Row]:
    head: list[Row] = []
    for row in found:
        head.append(row)
        if isinstance(row, tuple):
            break
    rows: Iterator[Row] = chain(head, found)
    last = head[-1] if head else None
    if isinstance(last, tuple) and isinstance(last[1], dict):
        of_turns = turn_columns(last[1], columns)
        holds_turns = any(isinstance(parsed(value), list) for value in last[1].values())
        if of_turns and not holds_turns and role_of(last[1][of_turns.speaker]) is not None:
            return _Conversations(of_turns).of(rows)
    return rows


@dataclass
class _Group:
    where: str
    is_whole: bool
    turns: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)


class _Conversations:
    def __init__(self, columns: TurnColumns) -> None:
        self._columns = columns
        self._seen: set[int] = set()
        self._current: object = None
        self._last_number = 0
        self._unordered = ""  # where the first conversation begins that has no order

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        yield from self._joined(rows)
        if self._unordered:
            names = " and ".join(printable(name[:40]) for name in self._columns.places)
            yield Notice(
                f"turns are taken in the order of their rows, since {names} holds what is neither "
                f"a number nor a time that can be read, first in the conversation of "
                f"{self._unordered}"
            )

    def _joined(self, rows: Iterable[Row]) -> Iterator[Row]:
        group: _Group | None = None
        is_whole = True
        for row in rows:
            if not isinstance(row, tuple):
                yield row
                if isinstance(row, SkippedRecord):  # of this conversation, or of the next
                    is_whole = False
                    if group is not None:
                        group.is_whole = False
                continue
            where, turn = row
            if not isinstance(turn, dict):
                yield SkippedRecord(where, f"the row is {json_type(turn)}, not an object")
                continue
            if self._begins(where, turn, group is None):
                if group is not None:
                    yield self._record(group)
                group = _Group(where, is_whole)
            assert group is not None
            is_whole = True
            if len(group.turns) <= MOST_TURNS:
                group.turns.append((self._place(turn), self._turn(turn)))
        if group is not None:
            yield self._record(group)

    def _begins(self, where: str, turn: dict[str, Any], is_first: bool) -> bool:
        """Whether a conversation begins with this turn."""
        columns = self._columns
        if columns.conversation:
            of = turn.get(columns.conversation)
            if of is None or not str(of).strip():
                raise Unusable(
                    f"{where} has no {printable(columns.conversation[:40])}, which says which rows "
                    "are one conversation; write it in each row"
                )
            is_new = is_first or of != self._current
            self._current = of
            if is_new and hash(str(of)) in self._seen:
                raise Unusable(
                    f"the turns of {printable(columns.conversation[:40])} {printable(str(of)[:40])}"
                    " do not stand together; sort the rows by that column"
                )
            self._seen.add(hash(str(of)))
            return is_new
        if columns.number:
            number = self._number(turn)
            before, self._last_number = self._last_number, number
            return is_first or number <= before
        is_system = role_of(turn.get(columns.speaker)) == "system"
        if is_first and not is_system:
            raise Unusable(
                f"it has one turn a row ({printable(columns.speaker)}, {printable(columns.words)}) "
                "and nothing says which rows are one conversation; add a column conversation_id, "
                "or write one record a conversation with its turns in messages"
            )
        return is_system

    def _number(self, turn: dict[str, Any]) -> int:
        text = str(turn.get(self._columns.number, "")).strip()
        return int(text) if text.isdecimal() and len(text) < 19 else 0

    def _place(self, turn: dict[str, Any]) -> Any:
        values = [turn.get(name) for name in self._columns.places]
        if len(values) < 2:
            return values[0] if values else None
        day, clock = map(_bare_day, values)
        return f"{day} {clock}"

    def _turn(self, turn: dict[str, Any]) -> dict[str, Any]:
        columns = self._columns
        of_table = {columns.speaker, columns.words, columns.conversation, columns.number}
        of_table.update(columns.places)
        rest = {name: value for name, value in turn.items() if name not in of_table}
        return {"role": turn.get(columns.speaker), "content": turn.get(columns.words), **rest}

    def _record(self, group: _Group) -> Row:
        if not group.is_whole:
            return SkippedRecord(
                group.where, "a turn beside it cannot be read, which may be its own"
            )
        places = [place for place, _ in group.turns]
        found: Sequence[int] | None = range(len(places))
        if any(place is not None and str(place).strip() for place in places):
            found = order(places)
        if found is None:
            self._unordered = self._unordered or group.where
            found = range(len(places))
        return group.where, {"messages": [group.turns[at][1] for at in found]}


def _bare_day(value: Any) -> str:
    """As text; a worksheet has midnight behind a day alone."""
    is_day = isinstance(value, datetime) and value.time() == time()
    return str(value.date() if is_day else value)
