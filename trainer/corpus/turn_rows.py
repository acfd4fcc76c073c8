"""Tables with one turn a row -> one record a conversation.

conversation_id, role, content      rows of one id, by `turn` where there is such a column
turn, role, content                 the number starts again with each conversation
role, content                       each conversation begins with a system turn
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from trainer.corpus.columns import Columns, folded, layouts
from trainer.corpus.conversations import MOST_TURNS, parsed, role_of
from trainer.corpus.examples import Notice, SkippedRecord, Unusable, json_type, printable

Row = tuple[str, Any] | SkippedRecord | Notice

_SPEAKERS = ("role", "from", "speaker", "sender")
_WORDS = ("content", "value", "text", "message", "utterance")
_IDS = (
    *("conversation_id", "conversation id", "conversationid", "conv_id", "conversation"),
    *("dialogue_id", "dialog_id", "dialogue", "dialog", "session_id", "session", "chat_id", "chat"),
    *("thread_id", "thread", "ticket_id", "ticket", "case_id"),
)
_NUMBERS = ("turn", "turn_id", "turn_index", "turn_idx", "turn_number", "message_index", "order")


@dataclass(frozen=True)
class TurnColumns:
    """Which columns of a table of turns are what; an empty one is not there."""

    speaker: str
    words: str
    conversation: str = ""
    number: str = ""


def turn_columns(names: Iterable[str], columns: Columns) -> TurnColumns | None:
    """None where the columns make records by themselves, or the user named some."""
    by_name = {folded(name): name for name in reversed(list(names))}
    known_forms = {layout.kind for layout in layouts(by_name.values(), columns)}
    if columns.all_given() or known_forms & {"completion", "answer"}:
        return None
    speaker, words, conversation, number = (
        next((by_name[n] for n in known if n in by_name), "")
        for known in (_SPEAKERS, _WORDS, _IDS, _NUMBERS)
    )
    return TurnColumns(speaker, words, conversation, number) if speaker and words else None


def joined(rows: Iterable[Row], columns: Columns) -> Iterable[Row]:
    """`rows`, or where the first of them is a turn the conversations that they are. Raises
    Unusable, also late."""
    found = iter(rows)
    head: list[Row] = []
    for row in found:
        head.append(row)
        if isinstance(row, tuple):
            break
    rows = chain(head, found)
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

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
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
            if self._begins(turn, group is None):
                if group is not None:
                    yield self._record(group)
                group = _Group(where, is_whole)
            assert group is not None
            is_whole = True
            if len(group.turns) <= MOST_TURNS:
                group.turns.append((self._number(turn), self._turn(turn)))
        if group is not None:
            yield self._record(group)

    def _begins(self, turn: dict[str, Any], is_first: bool) -> bool:
        """Whether a conversation begins with this turn."""
        columns = self._columns
        if columns.conversation:
            of = turn.get(columns.conversation)
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

    def _turn(self, turn: dict[str, Any]) -> dict[str, Any]:
        columns = self._columns
        of_table = (columns.speaker, columns.words, columns.conversation, columns.number)
        rest = {name: value for name, value in turn.items() if name not in of_table}
        return {"role": turn.get(columns.speaker), "content": turn.get(columns.words), **rest}

    def _record(self, group: _Group) -> Row:
        if not group.is_whole:
            return SkippedRecord(
                group.where, "a turn beside it cannot be read, which may be its own"
            )
        turns: Sequence[tuple[Any, dict[str, Any]]] = group.turns
        if self._columns.number and all(number for number, _ in turns[1:]):
            turns = sorted(turns, key=lambda turn: turn[0])
        return group.where, {"messages": [turn for _, turn in turns]}
