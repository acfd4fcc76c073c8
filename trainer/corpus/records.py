"""One record, the columns of a line or a row -> an example.

    {"messages": [{"role": …, "content": …}, …]}   Conversation
    {"prompt": …, "completion": …}       Completion; a Conversation where they are lists of turns
    {"question": …, "answer": …}         Conversation of a user and an assistant turn
    {"text": …}                          Text

The first form whose columns are there is taken; `columns` has the names they may have.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trainer.corpus.columns import Columns, Layout, layouts
from trainer.corpus.conversations import checked, joined_parts, parsed, turns_of, with_system
from trainer.corpus.examples import (
    LONGEST_LINE,
    Completion,
    Conversation,
    Example,
    Message,
    NotTrained,
    Text,
    Unusable,
    checked_text,
    json_type,
    printable,
)

FURTHER_ANSWERS = "not used: answers to a question behind its first one"
_MOST_KEPT_LAYOUTS = 64
_LIST_OF_ANSWERS = "answers"  # a column of this name has alternatives, one of another name parts


class Records:
    """Records of one file -> examples; afterwards `unused` has the columns that held something
    which no example has, `missing` those that the user named and no record has, and `counts` how
    often something else of a record was not used, by what it is."""

    def __init__(self, columns: Columns) -> None:
        self.unused: dict[str, None] = {}
        self.missing = columns.all_given()
        self.counts: Counter[str] = Counter()
        self._columns = columns
        self._layouts: dict[tuple[str, ...], list[Layout]] = {}

    def example(self, record: object) -> Example:
        """The most telling form that the columns of `record` allow. Raises Unusable, and NotTrained
        for one that says so of itself."""
        if not isinstance(record, dict):
            raise Unusable(f"the record is {json_type(record)}, not an object")
        found = _Fields(record, self._layout(record), self.counts)
        if self.missing:
            self.missing -= found.layout.names.keys()
        _refuse_untrained(found)
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
            raise Unusable(self._columns.preferred(record) or self._columns.wanted(names))
        full = (p for p in possible if all(record[name] is not None for name in p.needed))
        return next(full, possible[0])


class _Fields:
    """A record by the role of its columns; `used` are those that were asked for, and what else is
    not used is added to `counts`."""

    def __init__(self, record: dict[str, Any], layout: Layout, counts: Counter[str]) -> None:
        self.layout = layout
        self.counts = counts
        self.used: set[str] = set()
        self._record = record

    def get(self, role: str) -> Any:
        """What the column of `role` holds; None where there is none."""
        name = self.layout.names.get(role)
        if name is None:
            return None
        self.used.add(name)
        return self._record[name]

    def says_no(self, role: str) -> bool:
        """Whether the column of `role` marks the record as not to be trained, also as CSV files
        write it. It is not used where it is no mark, as the number of a class."""
        name = self.layout.names.get(role)
        if name is None:
            return False
        is_wanted = _MARKS[role].get(str(self._record[name]).strip().casefold())
        if is_wanted is not None:
            self.used.add(name)
        return is_wanted is False

    def text(self, role: str) -> str:
        return checked_text(self.get(role), self.name(role))

    def optional_text(self, role: str) -> str:
        """That of a column which may be missing or empty."""
        return self.text(role) if _says_something(self.get(role)) else ""

    def name(self, role: str) -> str:
        return f'"{printable(self.layout.names[role][:40])}"'


def _refuse_untrained(found: _Fields) -> None:
    """KTO's `label` of a completion, and a `weight` of 0."""
    if any([found.says_no("label"), found.says_no("weight")]):
        raise NotTrained


def _messages(found: _Fields, unused: dict[str, None]) -> Conversation:
    what = found.name("messages")
    turns = turns_of(found.get("messages"), what, unused)
    return checked(_with_system(found, turns), what, found.get("tools"))


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
        _with_system(found, [*given, *answer]),
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
    context = found.optional_text("context")
    if context:
        question = f"{question}\n\n{context}"
    turns = [*_history(found, unused), Message("user", question), Message("assistant", answer)]
    return checked(_with_system(found, turns), "the record")


def _with_system(found: _Fields, turns: list[Message]) -> list[Message]:
    """The turns behind the system prompt of the record, which is told where it is not used."""
    prompt = found.optional_text("system")
    if prompt and any(turn.role == "system" and turn.content != prompt for turn in turns):
        where = "in records with a system turn of their own"
        found.counts[f"not used: column {found.name('system')} {where}"] += 1
    return with_system(turns, prompt)


def _answer(found: _Fields) -> str:
    """The answer; parts of it are joined, and of several answers the first is taken."""
    answer, what = found.get("answer"), found.name("answer")
    has_several = what.strip('"').strip().casefold() == _LIST_OF_ANSWERS
    if _is_text_object(answer):  # as SQuAD has them: {"text": [...], …}
        answer, has_several = answer["text"], True
    if not isinstance(answer, list):
        return checked_text(answer, what)
    if not answer:
        raise Unusable(f"{what} holds no answer")
    if has_several:
        return _first_answer(answer, what, found.counts)
    if any(isinstance(part, dict) for part in answer):
        return checked_text(joined_parts(answer, what), what)
    lines = (checked_text(line, what, may_be_empty=True) for line in answer)
    return checked_text("\n".join(lines), what)


def _first_answer(answers: Sequence[Any], what: str, counts: Counter[str]) -> str:
    """Of several, which may be alike."""
    texts = [answer["text"] if _is_text_object(answer) else answer for answer in answers]
    first = checked_text(texts[0], what)
    further = len({str(text) for text in texts} - {str(texts[0])})
    if further:
        counts[FURTHER_ANSWERS] += further
    return first


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


_MARKS = {
    "label": {"true": True, "false": False},
    "weight": {"1": True, "1.0": True, "0": False, "0.0": False},
}
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
