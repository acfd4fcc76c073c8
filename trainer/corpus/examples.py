"""What a corpus is made of, and what a reader may say instead of an example."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cached_property
from math import isfinite
from typing import Any

from trainer.errors import JobError
from trainer.runtime.wording import counted

ROLES = ("system", "user", "assistant", "tool")

QUESTION_MARKS = ("?", "\N{FULLWIDTH QUESTION MARK}", "\N{ARABIC QUESTION MARK}")

LONGEST_LINE = 16 << 20  # characters: no record and no paragraph is that long
LONGEST_FIELD = 2 << 20  # of a record that is tokenised whole, which takes 140 bytes a character


@dataclass(frozen=True)
class Heading:
    """A heading of a document: `at` is the character its line starts at, level 1 the outermost."""

    at: int
    level: int
    title: str


@dataclass(frozen=True)
class Text:
    """A document: one file, or one `text` record. Every token of it is trained. One that `goes_on`
    is the beginning of another, and no end token follows it."""

    text: str
    headings: tuple[Heading, ...] = field(default=(), compare=False, repr=False)
    goes_on: bool = field(default=False, compare=False, repr=False)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("text", self.text)

    @cached_property
    def key(self) -> str:
        return content_digest(self.parts)


@dataclass(frozen=True)
class Completion:
    """A prompt that is given and the completion that is trained."""

    prompt: str
    completion: str

    @property
    def parts(self) -> tuple[str, ...]:
        return ("completion", self.prompt, self.completion)

    @cached_property
    def key(self) -> str:
        return content_digest(self.parts)


@dataclass(frozen=True)
class ToolCall:
    """A tool that the assistant calls; `arguments` is the text of a JSON object."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One turn; `role` is one of `ROLES`, `content` stands as it does in the data.

    It is empty only beside `tool_calls`, and where a tool gave nothing. An assistant turn that is
    not `trained` is given, as what others say is. `thought` is what the data keeps apart as the
    reasoning before the answer. A tool's turn has the tool's `name` and the `call_id` it answers.
    """

    role: str
    content: str
    trained: bool = True
    thought: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""

    def as_json(self) -> list[Any]:
        """[role, content], and what is not as usual: what `of_json` reads."""
        rest: dict[str, Any] = {} if self.trained else {"trained": False}
        rest |= {k: v for k in ("thought", "call_id", "name") if (v := getattr(self, k))}
        if self.tool_calls:
            rest["tool_calls"] = [[call.name, call.arguments, call.id] for call in self.tool_calls]
        return [self.role, self.content, rest] if rest else [self.role, self.content]

    @classmethod
    def of_json(cls, parts: Sequence[Any]) -> "Message":
        """Raises ValueError or TypeError for what `as_json` did not write."""
        role, content, *rest = parts
        more = dict(rest[0]) if rest else {}
        calls = tuple(ToolCall(*map(str, call)) for call in more.pop("tool_calls", ()))
        is_trained = more.pop("trained", True) is True
        words = {str(key): str(value) for key, value in more.items()}
        return cls(str(role), str(content), is_trained, tool_calls=calls, **words)


@dataclass(frozen=True)
class Conversation:
    """Turns of which the assistant's are trained, at least one; `tools` is the text of the JSON
    list of the tools that it may call. `where` it was read is for a person: "faq.jsonl line 31"."""

    messages: tuple[Message, ...]
    tools: str = ""
    where: str = field(default="", compare=False, repr=False)

    @property
    def parts(self) -> tuple[str, ...]:
        turns = (
            part if isinstance(part, str) else json.dumps(part)
            for turn in self.messages
            for part in turn.as_json()
        )
        return ("conversation", *turns, *([self.tools] if self.tools else ()))

    @cached_property
    def key(self) -> str:
        return content_digest(self.parts)


Example = Text | Completion | Conversation


class Unusable(Exception):
    """Why a file or a record is left out."""


class TooSlow(Unusable):
    """A file was given up after the time that there is for one."""


class NotTrained(Exception):
    """A record says that it is not to be trained: it is left out, and nothing is wrong with it. Its
    words name all such records."""


def as_unusable(error: Exception, what: str) -> Unusable:
    """Whatever reading something as `what` raises is its fault, and not this program's end.

    A file that cannot be read, a full memory and a signal are not: they are raised again.
    """
    if isinstance(error, Unusable):
        return error
    if isinstance(error, JobError | OSError | MemoryError):
        raise error
    if isinstance(error, RecursionError):
        return Unusable(f"it is nested too deep for a {what}")
    return unreadable(error, what)


def unreadable(error: object, what: str) -> Unusable:
    """With the first line of what a library said of it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return Unusable(f"it is no readable {what} ({printable(lines[0][:120])})")


@dataclass(frozen=True)
class SkippedRecord:
    """One record that is left out; `where` is "line 31" or "row 31"."""

    where: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """What a reader had to assume about a file that it could read. Of several files with the same
    `words` one is told, with its `amount`."""

    words: str
    amount: str = ""


class NextTable:
    """Between two tables of one file: what follows has columns of its own."""


class WrittenNumber(float):
    """A number as a file of JSON writes it: 1.10 is not 1.1 where it is a price or a version."""

    __slots__ = ("_written",)
    _written: str

    def __new__(cls, written: str) -> "WrittenNumber":
        number = super().__new__(cls, written)
        number._written = written
        return number

    def __str__(self) -> str:
        return self._written


class UnsavedFormula:
    """What a cell of a workbook has whose formula no program has computed."""


@dataclass(frozen=True)
class CellError:
    """What a cell of a workbook has whose formula has no value: #N/A, #REF! and the like."""

    shown: str

    def __str__(self) -> str:
        return self.shown


Item = Example | SkippedRecord | Notice


def content_digest(parts: tuple[str, ...]) -> str:
    """SHA-256 of `parts` with their borders, as 64 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def as_text(value: object) -> object:
    """Numbers, truth values and dates as JSON has them; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal) or (isinstance(value, float) and isfinite(value)):
        return str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return value


def checked_text(
    value: object, what: str, *, may_be_empty: bool = False, longest: int = LONGEST_FIELD
) -> str:
    r"""`value` as text that a tokenizer can take, its lines ending in \n; `what` names it in the
    reason."""
    value = as_text(value)
    if not isinstance(value, str):
        raise Unusable(f"{what} is {json_type(value)}, not text")
    if not may_be_empty and not value.strip():
        raise Unusable(f"{what} is empty")
    if len(value) > longest:
        raise Unusable(f"{what} is longer than {longest >> 20} Mi characters")
    if "\r" in value:
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in value:
        raise Unusable(f"{what} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = error.start + 1
        raise Unusable(f"{what} holds half a surrogate pair at character {at}") from None
    return value


def json_type(value: object) -> str:
    """What `value` is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, CellError):
        return f"an error of Excel ({value})"
    if isinstance(value, float):
        return "a number" if isfinite(value) else json.dumps(value)
    kinds = {bool: "true or false", int: "a number", str: "text", bytes: "binary"}
    kinds |= {list: "a list", tuple: "a list", dict: "an object", timedelta: "a span of time"}
    kinds[UnsavedFormula] = "a formula without its value (open and save the file once in Excel)"
    return kinds.get(type(value), f"of a kind that has no text ({type(value).__name__})")


def left_out(parts: Mapping[str, int], fewest: int = 1) -> Iterator[Notice]:
    """What is not used of a document: how many words stand in which part of it."""
    for part, words in parts.items():
        if words >= fewest:
            yield Notice(f"what stands {part} is not used", amount=counted(words, "word"))


def asks(words: object) -> bool:
    """Whether it ends as questions do."""
    return str(words).strip().endswith(QUESTION_MARKS)


def printable(name: str) -> str:
    """`name` fit for a log line: object keys may hold newlines and control characters."""
    return name if name.isprintable() else ascii(name)
