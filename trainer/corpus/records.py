"""One record, the columns of a line or a row -> an example.

    {"messages": [{"role": …, "content": …}, …]}   Conversation
    {"prompt": …, "completion": …}       Completion
    {"question": …, "answer": …}         Conversation of a user and an assistant turn
    {"text": …}                          Text

The first form whose columns are there is taken. Names are compared without case and spaces
around them; `GUESSES` has other names that published data sets use for the same columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.corpus.examples import (
    ROLES,
    Completion,
    Conversation,
    Example,
    Message,
    Text,
    Unusable,
    checked_text,
    json_type,
    printable,
)

GUESSES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt",),
    "completion": ("completion",),
    "question": ("question", "instruction", "query"),
    "answer": ("answer", "response", "output"),
    "context": ("input", "context"),
    "text": ("text", "content"),
}
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_QUOTED_COLUMNS = 8


@dataclass(frozen=True)
class Columns:
    """Names that the user gave to columns; an empty one is guessed."""

    question: str = ""
    answer: str = ""
    text: str = ""

    def named(self, role: str) -> tuple[str, ...]:
        """Names that the column of `role` may have."""
        given = getattr(self, role, "")
        return (_folded(given),) if given else GUESSES[role]


def example_of(record: object, columns: Columns) -> Example:
    """The most telling form that the columns of `record` allow. Raises Unusable."""
    if not isinstance(record, dict):
        raise Unusable(f"the record is {json_type(record)}, not an object")
    found = _Fields(record, columns)
    if found.has("messages"):
        return _conversation(found["messages"])
    if found.has("prompt", "completion"):
        return Completion(found.text("prompt"), found.text("completion"))
    if found.has("question", "answer"):
        return _question_answer(found)
    if found.has("text"):
        return Text(found.text("text"))
    raise Unusable(f"needs {_wanted(columns)}; it has {_column_names(record)}")


class _Fields:
    """A record by the role of its columns."""

    def __init__(self, record: dict[str, Any], columns: Columns) -> None:
        self._record = record
        by_name = {_folded(name): name for name in reversed(record)}
        self._names = {
            role: next((by_name[n] for n in columns.named(role) if n in by_name), None)
            for role in GUESSES
        }

    def has(self, *roles: str) -> bool:
        return all(self._names[role] is not None for role in roles)

    def __getitem__(self, role: str) -> Any:
        return self._record[self._names[role] or ""]

    def text(self, role: str) -> str:
        return checked_text(self[role], f'"{printable((self._names[role] or "")[:40])}"')


def _question_answer(found: _Fields) -> Conversation:
    question, answer = found.text("question"), found.text("answer")
    if found.has("context") and str(found["context"] or "").strip():
        question = f"{question}\n\n{found.text('context')}"
    return Conversation((Message("user", question), Message("assistant", answer)))


def _conversation(turns: object) -> Conversation:
    if not isinstance(turns, list):
        raise Unusable(f'"messages" is {json_type(turns)}, not a list')
    messages = tuple(_message(turn, at) for at, turn in enumerate(turns) if not _blank_system(turn))
    if not any(message.role == "assistant" for message in messages):
        raise Unusable('"messages" holds no assistant turn')
    return Conversation(messages)


def _blank_system(turn: object) -> bool:
    """Published data sets often carry an empty system turn; it says nothing, so it may go."""
    return (
        isinstance(turn, dict)
        and turn.get("role") == "system"
        and not str(turn.get("content") or "").strip()
    )


def _message(turn: object, at: int) -> Message:
    where = f"messages[{at}]"
    if not isinstance(turn, dict):
        raise Unusable(f'"{where}" is {json_type(turn)}, not an object')
    if turn.keys() >= {"from", "value"}:
        speaker = turn["from"]
        role = SHAREGPT_ROLES.get(speaker, speaker) if isinstance(speaker, str) else speaker
        turn = {"role": role, "content": turn["value"]}
    if missing := {"role", "content"} - turn.keys():
        raise Unusable(f'"{where}" has no {" and no ".join(sorted(missing))}')
    if turn["role"] not in ROLES:
        raise Unusable(f'"{where}.role" is none of {", ".join(ROLES)}')
    return Message(turn["role"], checked_text(turn["content"], f'"{where}.content"'))


def _wanted(columns: Columns) -> str:
    question, answer, text = (columns.named(role)[0] for role in ("question", "answer", "text"))
    return f"{text}, prompt + completion, {question} + {answer} or messages"


def _column_names(record: dict[str, Any]) -> str:
    names = [printable(name[:40]) for name in list(record)[:_QUOTED_COLUMNS]]
    more = len(record) - len(names)
    return (", ".join(names) or "no columns") + (f" and {more} more" if more else "")


def _folded(name: str) -> str:
    return name.strip().casefold()
