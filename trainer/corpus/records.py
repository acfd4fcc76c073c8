"""One record, the columns of a line or a row -> an example.

    {"messages": [{"role": …, "content": …}, …]}   Conversation
    {"prompt": …, "completion": …}       Completion; a Conversation where they are lists of turns
    {"question": …, "answer": …}         Conversation of a user and an assistant turn
    {"text": …}                          Text

The first form whose columns are there is taken; `columns` has the names they may have.
"""

from dataclasses import replace
from typing import Any

from trainer.corpus.columns import Columns, Layout, layouts
from trainer.corpus.conversations import checked, parsed, turns_of, with_system
from trainer.corpus.examples import (
    LONGEST_LINE,
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

_MOST_KEPT_LAYOUTS = 64


class Records:
    """Records of one file -> examples; afterwards `unused` has the columns that held something
    which no example has, and `missing` those that the user named and no record has."""

    def __init__(self, columns: Columns) -> None:
        self.unused: dict[str, None] = {}
        self.missing = columns.all_given()
        self._columns = columns
        self._layouts: dict[tuple[str, ...], list[Layout]] = {}

    def example(self, record: object) -> Example:
        """The most telling form that the columns of `record` allow. Raises Unusable."""
        if not isinstance(record, dict):
            raise Unusable(f"the record is {json_type(record)}, not an object")
        found = _Fields(record, self._layout(record))
        if self.missing:
            self.missing -= found.layout.names.keys()
        example = _READERS[found.layout.form](found, self.unused)
        for name, value in record.items():
            if name not in self.unused and name not in found.used and _says_something(value):
                self.unused[printable(name[:40])] = None
        return example

    def _layout(self, record: dict[str, Any]) -> Layout:
        """The first form whose columns are all there and hold something, else are there."""
        names = tuple(record)
        if names not in self._layouts:
            if len(self._layouts) >= _MOST_KEPT_LAYOUTS:
                self._layouts.clear()
            self._layouts[names] = layouts(names, self._columns)
        possible = self._layouts[names]
        if not possible:
            raise Unusable(self._columns.wanted(names))
        full = (p for p in possible if all(record[name] is not None for name in p.needed))
        return next(full, possible[0])


class _Fields:
    """A record by the role of its columns; `used` are those that were asked for."""

    def __init__(self, record: dict[str, Any], layout: Layout) -> None:
        self.layout = layout
        self.used: set[str] = set()
        self._record = record

    def get(self, role: str) -> Any:
        """What the column of `role` holds; None where there is none."""
        name = self.layout.names.get(role)
        if name is None:
            return None
        self.used.add(name)
        return self._record[name]

    def text(self, role: str) -> str:
        return checked_text(self.get(role), self.name(role))

    def optional_text(self, role: str) -> str:
        """That of a column which may be missing or empty."""
        return self.text(role) if _says_something(self.get(role)) else ""

    def name(self, role: str) -> str:
        return f'"{printable(self.layout.names[role][:40])}"'


def _messages(found: _Fields, unused: dict[str, None]) -> Conversation:
    what = found.name("messages")
    turns = turns_of(found.get("messages"), what, unused)
    return checked(with_system(turns, found.optional_text("system")), what, found.get("tools"))


def _prompt_completion(found: _Fields, unused: dict[str, None]) -> Completion | Conversation:
    """Text that goes on; or turns, of which those of the prompt are given."""
    prompt, completion = found.get("prompt"), found.get("completion")
    has_system = "system" in found.layout.names
    if not has_system and not isinstance(prompt, list) and not isinstance(completion, list):
        return Completion(found.text("prompt"), found.text("completion"))
    turns = _turns(found, "prompt", "user", unused)
    given = [replace(turn, trained=turn.role != "assistant") for turn in turns]
    answer = _turns(found, "completion", "assistant", unused)
    return checked(
        with_system([*given, *answer], found.optional_text("system")),
        found.name("completion"),
        found.get("tools"),
    )


def _turns(found: _Fields, role: str, speaker: str, unused: dict[str, None]) -> list[Message]:
    """A list of turns, or text that `speaker` says."""
    if isinstance(found.get(role), list):
        return turns_of(found.get(role), found.name(role), unused)
    return [Message(speaker, found.text(role))]


def _question_answer(found: _Fields, unused: dict[str, None]) -> Conversation:
    question, answer = found.text("question"), _answer(found)
    context, system = found.optional_text("context"), found.optional_text("system")
    if context:
        question = f"{question}\n\n{context}"
    turns = [*_history(found, unused), Message("user", question), Message("assistant", answer)]
    return checked(with_system(turns, system), "the record")


def _answer(found: _Fields) -> str:
    """The answer; the first of several, as SQuAD has them: {"text": [...], …}."""
    answer = found.get("answer")
    if _is_text_object(answer):
        answer = answer["text"]
    if isinstance(answer, list):
        if not answer:
            raise Unusable(f"{found.name('answer')} holds no answer")
        answer = answer[0]["text"] if _is_text_object(answer[0]) else answer[0]
    return checked_text(answer, found.name("answer"))


def _is_text_object(value: object) -> bool:
    return isinstance(value, dict) and "text" in value


def _history(found: _Fields, unused: dict[str, None]) -> list[Message]:
    """Earlier rounds: [question, answer] pairs, or turns."""
    history = parsed(found.get("history"))
    if not _says_something(history):
        return []
    what = found.name("history")
    if not isinstance(history, list):
        raise Unusable(f"{what} is {json_type(history)}, not a list")
    if not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in history):
        return turns_of(history, what, unused)
    speakers = ("user", "assistant")
    return [
        Message(role, checked_text(words, what))
        for pair in history
        for role, words in zip(speakers, pair, strict=True)
    ]


def _text(found: _Fields, unused: dict[str, None]) -> Text:
    return Text(checked_text(found.get("text"), found.name("text"), longest=LONGEST_LINE))


_READERS = {
    ("messages",): _messages,
    ("prompt", "completion"): _prompt_completion,
    ("question", "answer"): _question_answer,
    ("text",): _text,
}


def _says_something(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != [] and value != {}
