"""Files of every accepted format -> documents, prompt/completion records and conversations.

A `.txt` or `.md` file is one document. Every line of a `.jsonl` file is one record:

    {"text": …}                          Text
    {"prompt": …, "completion": …}       Completion
    {"question": …, "answer": …}         Conversation of a user and an assistant turn
    {"messages": [{"role": …, "content": …}, …]}   Conversation

What cannot be used is skipped with its reason; too much of it ends the run.
"""

import codecs
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.errors import DataError

DOCUMENT_SUFFIXES = (".txt", ".md")
RECORD_SUFFIXES = (".jsonl",)
SUFFIXES = DOCUMENT_SUFFIXES + RECORD_SUFFIXES
ROLES = ("system", "user", "assistant")

_CHUNK_BYTES = 1 << 20
_QUOTED_REASONS = 3
_QUOTED_COLUMNS = 8


@dataclass(frozen=True)
class Source:
    """One file to read. `name` is relative, '/'-separated, and is what messages show."""

    name: str
    path: Path


@dataclass(frozen=True)
class Text:
    """A document: one file, or one `text` record. Every token of it is trained."""

    text: str

    @cached_property
    def key(self) -> str:
        return _digest("text", self.text)


@dataclass(frozen=True)
class Completion:
    """A prompt that is given and the completion that is trained."""

    prompt: str
    completion: str

    @cached_property
    def key(self) -> str:
        return _digest("completion", self.prompt, self.completion)


@dataclass(frozen=True)
class Message:
    """One turn; `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns of which the assistant's are trained; holds at least one of those."""

    messages: tuple[Message, ...]

    @cached_property
    def key(self) -> str:
        turns = (part for turn in self.messages for part in (turn.role, turn.content))
        return _digest("conversation", *turns)


Example = Text | Completion | Conversation


@dataclass(frozen=True)
class Skipped:
    """A file, or one line of it, that was left out. `reason` begins with the name."""

    name: str
    reason: str


@dataclass
class Corpus:
    """What the sources hold, in their order, without exact duplicates."""

    examples: list[Example] = field(default_factory=list)
    files: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    duplicates: int = 0

    @property
    def kinds(self) -> dict[str, int]:
        """Number of examples of each kind: text, completion, conversation."""
        return dict(Counter(type(example).__name__.lower() for example in self.examples))


def read_corpus(sources: Iterable[Source], *, max_skipped_share: float = 0.1) -> Corpus:
    """Read all `sources`; drop exact duplicates and count them.

    `files` counts the files of an accepted suffix. A file of another suffix is listed in
    `skipped` but does not count towards `max_skipped_share`, the largest acceptable share of
    skipped files and records: an image beside a README is normal.

    Raises DataError when a file cannot be opened, when nothing usable is there, and when
    more than the share was skipped.
    """
    corpus = Corpus()
    seen: set[str] = set()
    unusable: list[Skipped] = []
    for source in sources:
        suffix = PurePosixPath(source.name).suffix.lower()
        if suffix not in SUFFIXES:
            kind = suffix or "file without a suffix"
            corpus.skipped.append(_skipped(source, f"unsupported {kind}"))
            continue
        corpus.files += 1
        examples, faults = _read_file(source, suffix)
        unusable.extend(faults)
        corpus.skipped.extend(faults)
        for example in examples:
            if example.key in seen:
                corpus.duplicates += 1
            else:
                seen.add(example.key)
                corpus.examples.append(example)
    _check_share(corpus, unusable, max_skipped_share)
    return corpus


def _check_share(corpus: Corpus, unusable: list[Skipped], max_skipped_share: float) -> None:
    """Raise DataError when too little is left to train on."""
    if not corpus.files:
        found = f"only {_quoted(corpus.skipped)}" if corpus.skipped else "no files"
        raise DataError(f"the data holds {found}; it needs {', '.join(SUFFIXES)} files")
    total = len(corpus.examples) + corpus.duplicates + len(unusable)
    share = len(unusable) / total
    if share > max_skipped_share or not corpus.examples:
        raise DataError(
            f"{len(unusable)} of {total} files and records cannot be used "
            f"({share:.0%}, the limit is {max_skipped_share:.0%}): {_quoted(unusable)}; "
            "repair or remove them"
        )


def _quoted(skipped: list[Skipped]) -> str:
    more = len(skipped) - _QUOTED_REASONS
    first = "; ".join(skip.reason for skip in skipped[:_QUOTED_REASONS])
    return first + (f"; and {more} more" if more > 0 else "")


class _Unusable(Exception):
    """Why a file or a record is left out."""


def _read_file(source: Source, suffix: str) -> tuple[list[Example], list[Skipped]]:
    """The examples of one file and what was left out of it.

    A file that does not decode gives no example at all: what precedes a broken byte is in
    doubt too.
    """
    try:
        if suffix in DOCUMENT_SUFFIXES:
            return [_document("".join(_decoded(source.path)))], []
        return _records(source)
    except _Unusable as refused:
        return [], [_skipped(source, str(refused))]
    except OSError as error:
        raise DataError(
            f"{_shown(source.name)} cannot be read ({error.strerror or error}); "
            "check that it is a file and that this user may read it"
        ) from error


def _document(text: str) -> Text:
    return Text(_worded(text.replace("\r\n", "\n").replace("\r", "\n"), "the file"))


def _records(source: Source) -> tuple[list[Example], list[Skipped]]:
    examples: list[Example] = []
    skipped: list[Skipped] = []
    for number, line in enumerate(_lines(_decoded(source.path)), start=1):
        if not line.strip():
            continue
        try:
            examples.append(_example(_parsed(line)))
        except _Unusable as refused:
            skipped.append(_skipped(source, str(refused), line=number))
    if not examples and not skipped:
        raise _Unusable("the file is empty")
    return examples, skipped


def _decoded(path: Path) -> Iterator[str]:
    """The text of a file, about a MiB at a time. UTF-8, or UTF-16 with a byte-order mark."""
    with path.open("rb") as file:
        mark, encoding = _byte_order_mark(file.read(3))
        file.seek(len(mark))
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        consumed = len(mark)
        while True:
            chunk = file.read(_CHUNK_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise _Unusable(
                    f"byte {consumed - pending + error.start} is not {encoding.upper()}; "
                    "save the file as UTF-8"
                ) from None
            if "\0" in text:
                raise _Unusable("it holds NUL bytes: binary, or UTF-16 without a mark")
            consumed += len(chunk)
            yield text
            if not chunk:
                return


def _byte_order_mark(head: bytes) -> tuple[bytes, str]:
    """The mark at the start of a file, empty if there is none, and the encoding it announces."""
    marks = {
        codecs.BOM_UTF8: "utf-8",
        codecs.BOM_UTF16_LE: "utf-16-le",
        codecs.BOM_UTF16_BE: "utf-16-be",
    }
    return next(
        ((mark, encoding) for mark, encoding in marks.items() if head.startswith(mark)),
        (b"", "utf-8"),
    )


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    r"""Lines that end in \n. Not `str.splitlines`: JSON strings may hold U+2028 and the like."""
    started: list[str] = []
    for chunk in chunks:
        *whole, rest = chunk.split("\n")
        for line in whole:
            yield "".join(started) + line
            started = []
        started.append(rest)
    yield "".join(started)


def _parsed(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise _Unusable(f"broken JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise _Unusable("JSON nested too deep") from None
    except ValueError:  # a number of more than 4,300 digits
        raise _Unusable("JSON with a number that is too long") from None
    if not isinstance(record, dict):
        raise _Unusable(f"the line is {_json_kind(record)}, not an object")
    return record


def _example(record: dict[str, Any]) -> Example:
    """The most telling form that the columns of `record` allow."""
    for columns, build in _FORMS.items():
        if record.keys() >= set(columns):
            return build(record)
    raise _Unusable(
        "needs text, prompt + completion, question + answer or messages; "
        f"it has {_column_names(record)}"
    )


def _completion(record: dict[str, Any]) -> Completion:
    return Completion(_column(record, "prompt"), _column(record, "completion"))


def _question_answer(record: dict[str, Any]) -> Conversation:
    question, answer = _column(record, "question"), _column(record, "answer")
    return Conversation((Message("user", question), Message("assistant", answer)))


def _conversation(record: dict[str, Any]) -> Conversation:
    turns = record["messages"]
    if not isinstance(turns, list):
        raise _Unusable(f'"messages" is {_json_kind(turns)}, not a list')
    messages = tuple(_message(turn, at) for at, turn in enumerate(turns) if not _blank_system(turn))
    if not any(message.role == "assistant" for message in messages):
        raise _Unusable('"messages" holds no assistant turn')
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
        raise _Unusable(f'"{where}" is {_json_kind(turn)}, not an object')
    if missing := {"role", "content"} - turn.keys():
        raise _Unusable(f'"{where}" has no {" and no ".join(sorted(missing))}')
    if turn["role"] not in ROLES:
        raise _Unusable(f'"{where}.role" is none of {", ".join(ROLES)}')
    return Message(turn["role"], _worded(turn["content"], f'"{where}.content"'))


_FORMS: Mapping[tuple[str, ...], Callable[[dict[str, Any]], Example]] = {
    ("messages",): _conversation,
    ("prompt", "completion"): _completion,
    ("question", "answer"): _question_answer,
    ("text",): lambda record: Text(_column(record, "text")),
}


def _column(record: dict[str, Any], name: str) -> str:
    return _worded(record[name], f'"{name}"')


def _worded(value: object, what: str) -> str:
    """`value` if it is text that a tokenizer can take; `what` names it in the reason."""
    if not isinstance(value, str):
        raise _Unusable(f"{what} is {_json_kind(value)}, not text")
    if not value.strip():
        raise _Unusable(f"{what} is empty")
    if "\0" in value:
        raise _Unusable(f"{what} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = error.start + 1
        raise _Unusable(f"{what} holds half a surrogate pair at character {at}") from None
    return value


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", str: "text"}
    return kinds.get(type(value), "an object")


def _column_names(record: dict[str, Any]) -> str:
    names = [_shown(name[:40]) for name in list(record)[:_QUOTED_COLUMNS]]
    more = len(record) - len(names)
    return (", ".join(names) or "no columns") + (f" and {more} more" if more else "")


def _skipped(source: Source, reason: str, line: int | None = None) -> Skipped:
    name = _shown(source.name) + (f" line {line}" if line else "")
    return Skipped(source.name, f"{name}: {reason}")


def _shown(name: str) -> str:
    """`name` fit for a log line: object keys may hold newlines and control characters."""
    return name if name.isprintable() else ascii(name)


def _digest(*parts: str) -> str:
    """SHA-256 of `parts` with their borders, as 64 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
