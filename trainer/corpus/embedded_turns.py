"""Turns that stand in a column for one text: lists of them, or the JSON of such a list.

Tools that log what a chat API was asked, as Langfuse and OpenAI's stored responses, keep the turns
of a request in `input` and those of its answer in `output`.
"""

from collections import Counter
from typing import Any

from trainer.corpus.conversations import CONTENT_KEYS, parsed, role_of

REASONING = "not used: reasoning of logged answers"
MAY_BEGIN = {"[", "{", " ", "\n", "\r", "\t"}
_BEGINS = ("[", "{")
_SPEAKERS = ("role", "from")
_SAID = (*CONTENT_KEYS, "tool_calls", "function_call")


def turns_in(value: object, counts: Counter[str]) -> list[Any] | None:
    """The turns that `value` holds, at least one; None where it is something else. What of them is
    not used is added to `counts`."""
    if isinstance(value, str):
        if not value.lstrip().startswith(_BEGINS) or not any(name in value for name in _SPEAKERS):
            return None
        value = parsed(value)
    if isinstance(value, dict):
        turns = value.get("messages", value)
        value = turns if isinstance(turns, list) else [value]
    if not isinstance(value, list):
        return None
    spoken = [part for part in value if not _is_reasoning(part)]
    if not spoken or not all(map(_is_turn, spoken)):
        return None
    if len(spoken) < len(value):
        counts[REASONING] += len(value) - len(spoken)
    return spoken


def _is_turn(part: object) -> bool:
    if not isinstance(part, dict) or not any(key in part for key in _SAID):
        return False
    return any(role_of(part.get(key)) is not None for key in _SPEAKERS)


def _is_reasoning(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "reasoning" and "role" not in part
