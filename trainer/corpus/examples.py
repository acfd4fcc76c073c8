"""What a corpus is made of, and what a reader may say instead of an example."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Heading:
    """A heading of a document: `at` is the character its line starts at, level 1 the outermost."""

    at: int
    level: int
    title: str


@dataclass(frozen=True)
class Text:
    """A document: one file, or one `text` record. Every token of it is trained."""

    text: str
    headings: tuple[Heading, ...] = field(default=(), compare=False, repr=False)

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
class Message:
    """One turn; `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns of which the assistant's are trained; holds at least one of those."""

    messages: tuple[Message, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        turns = (part for turn in self.messages for part in (turn.role, turn.content))
        return ("conversation", *turns)

    @cached_property
    def key(self) -> str:
        return content_digest(self.parts)


Example = Text | Completion | Conversation


class Unusable(Exception):
    """Why a file or a record is left out."""


@dataclass(frozen=True)
class SkippedRecord:
    """One record that is left out; `where` is "line 31" or "row 31"."""

    where: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """What a reader had to assume about a file that it could read."""

    words: str


Item = Example | SkippedRecord | Notice


def content_digest(parts: tuple[str, ...]) -> str:
    """SHA-256 of `parts` with their borders, as 64 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def checked_text(value: object, what: str) -> str:
    """`value` if it is text that a tokenizer can take; `what` names it in the reason."""
    if not isinstance(value, str):
        raise Unusable(f"{what} is {json_type(value)}, not text")
    if not value.strip():
        raise Unusable(f"{what} is empty")
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
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", str: "text"}
    kinds |= {dict: "an object", bytes: "binary"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def printable(name: str) -> str:
    """`name` fit for a log line: object keys may hold newlines and control characters."""
    return name if name.isprintable() else ascii(name)
