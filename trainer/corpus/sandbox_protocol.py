"""Items as lines of JSON: how the child process hands them to this one.

JSON and not pickle: a child that a hostile file has taken over must not run code here.
"""

import json
from typing import Any

from trainer.corpus.examples import (
    Completion,
    Conversation,
    Heading,
    Item,
    Message,
    Notice,
    SkippedRecord,
    Text,
)


def encode_item(item: Item) -> bytes:
    """One line."""
    match item:
        case Text(text, headings):
            parts: list[Any] = ["text", text, [[h.at, h.level, h.title] for h in headings]]
        case Completion(prompt, completion):
            parts = ["completion", prompt, completion]
        case Conversation(messages, tools, where):
            parts = ["conversation", [message.as_json() for message in messages], tools, where]
        case SkippedRecord(where, reason):
            parts = ["refused", where, reason]
        case Notice(words, amount):
            parts = ["notice", words, amount]
    return json.dumps(parts).encode() + b"\n"


def decode_item(line: bytes) -> Item:
    """Raises ValueError for anything that `encode_item` did not write."""
    kind, *parts = json.loads(line)
    match kind, parts:
        case "text", [str(text), list(headings)]:
            return Text(text, tuple(Heading(int(at), int(n), str(t)) for at, n, t in headings))
        case "completion", [str(prompt), str(completion)]:
            return Completion(prompt, completion)
        case "conversation", [list(turns), str(tools), str(where)]:
            return Conversation(tuple(map(Message.of_json, turns)), tools, where)
        case "refused", [str(where), str(reason)]:
            return SkippedRecord(where, reason)
        case "notice", [str(words), str(amount)]:
            return Notice(words, amount)
    raise ValueError(f"no item: {line[:80]!r}")
