"""One record, the columns of a line or a row -> an example.

    {"messages": [{"role": …, "content": …}, …]}   Conversation
    {"prompt": …, "completion": …}       Completion; a Conversation where they are lists of turns
    {"question": …, "answer": …}         Conversation of a user and an assistant turn
    {"text": …}                          Text

The first form whose columns are there is taken; `columns` has the names they may have.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

from trainer.corpus.answers import answer_of, has_no_answer
from trainer.corpus.choices import Choices, choices_of
from trainer.corpus.columns import CHOICE_ROLES, Columns, Layout, folded, layouts
from trainer.corpus.conversations import (
    checked,
    joined_parts,
    parsed,
    turns_of,
    with_system,
)
from trainer.corpus.embedded_turns import MAY_BEGIN, turns_in
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
from trainer.corpus.exports import reshaped
from trainer.corpus.recorded_thoughts import refuse_open_thought

NO_CHOICE = "answers that are no choice"
NUMBERED = "answers read as the numbers of choices, counted from 0"
MADE_BY = "made_by"  # of a record that `prepare` wrote, which says where it comes from
_OF_PREPARE = frozenset({"source", "section", "passage", MADE_BY})
_MOST_KEPT_LAYOUTS = 64


class Records:
    """Records of one file -> examples; afterwards `unused` has the columns that held something
    which no example has, `missing` those that the user named and no record has, and `counts` how
    often something else of a record was not used, by what it is."""

    def __init__(self, columns: Columns) -> None:
        self.unused: dict[str, None] = {}
        self.missing = columns.all_given()
        self.counts: Counter[str] = Counter()
        self._columns = columns
        self._known = columns.all_names()
        self._layouts: dict[tuple[str, ...], list[Layout]] = {}

    def example(self, record: object) -> Example:
        """The most telling form that the columns of `record` allow. Raises Unusable, and NotTrained
        for one that says so of itself."""
        if not isinstance(record, dict):
            raise Unusable(f"the record is {json_type(record)}, not an object")
        possible = self._possible(record)
        if not possible or isinstance(record.get("chat"), dict):
            other = reshaped(record, self._columns, self.counts)
            if other is not None:
                record, possible = other, self._possible(other)
        if not possible:
            raise Unusable(self._columns.preferred(record) or self._columns.wanted(record))
        # the first form whose columns all hold something, else are there
        full = (p for p in possible if all(record[name] is not None for name in p.needed))
        found = _Fields(record, next(full, possible[0]), self.counts)
        if self.missing:
            self.missing -= found.layout.names.keys()
        _refuse_untrained(found)
        example = _READERS[found.layout.kind](found, self.unused)
        known = found.used | _OF_PREPARE if MADE_BY in record else found.used
        for name, value in record.items():
            if name not in self.unused and name not in known and _says_something(value):
                self.unused[printable(name[:40])] = None
        return example

    def _possible(self, record: dict[str, Any]) -> list[Layout]:
        """Asked for the names that mean something alone, where each record has others beside."""
        names = tuple(record)
        if names not in self._layouts:
            known = tuple(name for name in names if folded(name) in self._known)
            if len(self._layouts) >= _MOST_KEPT_LAYOUTS:
                self._layouts.clear()
            if known not in self._layouts:
                self._layouts[known] = layouts(known, self._columns)
            self._layouts[names] = self._layouts[known]
        return self._layouts[names]


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

    def peek(self, role: str) -> Any:
        """The same, which it may be that nothing is made of."""
        name = self.layout.names.get(role)
        return None if name is None else self._record[name]

    def use(self, *roles: str) -> None:
        """What the columns of these roles hold is used."""
        self.used.update(self.layout.names[role] for role in roles if role in self.layout.names)

    def says_no(self, role: str) -> bool:
        """Whether the column of `role` marks the record as not to be trained, also as CSV files
        write it. It is not used where it is no mark, as the number of a class."""
        name = self.layout.names.get(role)
        if name is None:
            return False
        is_wanted = _MARKS[role].get(_mark(self._record[name]))
        if is_wanted is not None:
            self.used.add(name)
        return is_wanted is False

    def text(self, role: str) -> str:
        return checked_text(self.get(role), self.name(role))

    def optional_text(self, role: str) -> str:
        """That of a column which may be missing or empty."""
        return self.text(role) if _says_something(self.get(role)) else ""

    def turns(self, role: str) -> list[Any] | None:
        """Those that its column holds in place of a text; None where it has none."""
        value = self.get(role)
        if isinstance(value, str) and value[:1] not in MAY_BEGIN:  # as nearly all of them
            return None
        return turns_in(value, self.counts)

    def name(self, role: str) -> str:
        return f'"{printable(self.layout.names[role][:40])}"'


def _refuse_untrained(found: _Fields) -> None:
    """KTO's `label` of a completion, and a `weight` of 0. Raises Unusable for a part of one."""
    if any([found.says_no("label"), found.says_no("weight")]):
        raise NotTrained("records that are marked as not to be trained")
    if "weight" in found.layout.names and _is_a_part(found.peek("weight")):
        raise Unusable(
            f"{found.name('weight')} is {found.peek('weight')}: a record is trained (1) or not "
            "(0); rename the column if it says something else"
        )


def _is_a_part(weight: object) -> bool:
    with suppress(ValueError):
        return 0 < float(str(weight)) < 1
    return False


def _messages(found: _Fields, unused: dict[str, None]) -> Conversation:
    what = found.name("messages")
    turns = turns_of(found.get("messages"), what, unused)
    return checked(_with_system(found, turns), what, found.counts, found.get("tools"))


def _prompt_completion(found: _Fields, unused: dict[str, None]) -> Completion | Conversation:
    """Text that goes on; or turns, of which those of the prompt are given."""
    is_text = all(found.turns(role) is None for role in ("prompt", "completion"))
    if is_text and "system" not in found.layout.names:
        refuse_open_thought(found.text("completion"), found.name("completion"))
        return Completion(found.text("prompt"), found.text("completion"))
    asked, answer = (found.turns(role) for role in ("prompt", "completion"))
    if asked is None:
        asked = [{"role": "user", "content": found.text("prompt")}]
    if answer is None:
        answer = [{"role": "assistant", "content": found.text("completion")}]
    turns = _given_and_answered(found, ("prompt", asked), ("completion", answer), unused)
    what = found.name("completion")
    return checked(_with_system(found, turns), what, found.counts, found.get("tools"))


def _given_and_answered(
    found: _Fields,
    asked: tuple[str, list[Any]],
    answered: tuple[str, list[Any]],
    unused: dict[str, None],
) -> list[Message]:
    """(the role of the column, its turns) of both; of the first nothing is trained."""
    given, answer = (turns_of(turns, found.name(role), unused) for role, turns in (asked, answered))
    return [*(replace(turn, trained=turn.role != "assistant") for turn in given), *answer]


def _question_answer(found: _Fields, unused: dict[str, None]) -> Conversation:
    given = found.get("answer")
    is_empty = isinstance(given, list | dict) and has_no_answer(given, found.name("answer"))
    if is_empty or (found.layout.is_quiz and found.says_no("unanswerable")):
        raise NotTrained("questions that it says have no answer")
    asked, answered = found.turns("question"), found.turns("answer")
    if asked is not None or answered is not None:
        return _logged_turns(found, asked, answered, unused)
    choices = _choices(found) if found.layout.is_quiz else None
    line = _right(choices, found) if choices is not None else ""
    question = found.text("question")
    answer = line or answer_of(given, found.name("answer"), found.counts)
    if choices is not None and line:
        question = choices.worded(question)
        found.use("choices", *CHOICE_ROLES)
    context = found.optional_text("context")
    if context:
        question = f"{question}\n\n{context}"
    turns = [*_history(found, unused), Message("user", question), Message("assistant", answer)]
    return checked(_with_system(found, turns), "the record", found.counts)


def _logged_turns(
    found: _Fields, asked: list[Any] | None, answered: list[Any] | None, unused: dict[str, None]
) -> Conversation:
    """What a chat API was asked and what it answered, of which one may be text."""
    if asked is None:
        asked = [{"role": "user", "content": found.text("question")}]
    if answered is None:
        words = answer_of(found.get("answer"), found.name("answer"), found.counts)
        answered = [{"role": "assistant", "content": words}]
    turns = _given_and_answered(found, ("question", asked), ("answer", answered), unused)
    turns = _with_system(found, [*_history(found, unused), *turns])
    return checked(turns, "the record", found.counts)


def _choices(found: _Fields) -> Choices | None:
    """What a question lets choose from: a list, or a column for each."""
    roles = [role for role in CHOICE_ROLES if role in found.layout.names]
    if "choices" not in found.layout.names and roles[:2] != list(CHOICE_ROLES[:2]):
        return None
    said = parsed(found.peek("choices"))
    what = "the record"
    if "choices" in found.layout.names:
        what = found.name("choices")
    else:
        said = [value for role in roles if _says_something(value := found.peek(role))]
    if not _says_something(said):
        return None
    try:
        return choices_of(said, what)
    except Unusable:  # they are something else where the answer names none of them
        if Choices.is_name(found.get("answer")):
            raise
        return None


def _right(choices: Choices, found: _Fields) -> str:
    try:
        line, is_number = choices.right(found.get("answer"))
    except Unusable:
        found.counts[NO_CHOICE] += 1
        raise
    if is_number:
        found.counts[NUMBERED] += 1
    return line


def _with_system(found: _Fields, turns: list[Message]) -> list[Message]:
    """The turns behind the system prompt of the record, which is told where it is not used."""
    prompt = found.get("system")
    if isinstance(prompt, list):
        prompt = joined_parts(prompt, found.name("system"))
    prompt = checked_text(prompt, found.name("system")) if _says_something(prompt) else ""
    if prompt and any(turn.role == "system" and turn.content != prompt for turn in turns):
        where = "in records with a system turn of their own"
        found.counts[f"not used: column {found.name('system')} {where}"] += 1
    return with_system(turns, prompt)


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


def _text(found: _Fields, unused: dict[str, None]) -> Text | Conversation:
    if (turns := found.turns("text")) is not None:
        what = found.name("text")
        return checked(turns_of(turns, what, unused), what, found.counts)
    return Text(checked_text(found.get("text"), found.name("text"), longest=LONGEST_LINE))


_MARKS = {
    "unanswerable": {"true": False, "false": True, "1": False, "0": True},
    "label": {"true": True, "false": False},
    "weight": {"1": True, "0": False},
}
_READERS = {
    "messages": _messages,
    "completion": _prompt_completion,
    "answer": _question_answer,
    "text": _text,
}


def _mark(value: object) -> str:
    """1 and 1.0, in figures or as text, are the same."""
    mark = str(value).strip().casefold()
    whole, _, places = mark.partition(".")
    return whole if whole in ("0", "1") and not places.strip("0") else mark


def _says_something(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != [] and value != {}
