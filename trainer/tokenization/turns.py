"""The turns of a conversation as one chat template reads them.

Templates differ in where they look for a thought, whether contents may be parts, what they take
for the arguments of a call, and whether they know a system turn: `TurnStyle` says it of one.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from trainer.corpus.examples import Conversation, Message, Unusable

Mark = Callable[[int, str], str]
Turn = dict[str, Any]

_OPENING, _CLOSING = "<think>", "</think>"
# Stands for it where a template would throw away what comes before it.
HIDDEN_CLOSING = "\uf8fe"


@dataclass(frozen=True)
class TurnStyle:
    """What one template reads.

    A thought is given as `field` (a key of its turn), `inline` (in the content) or `hidden` (in
    the content, so that the template does not know it as one): `inline_thought` says it of one
    that stands in the content, `own_thought` of one that the data keeps apart.
    """

    has_system: bool = True
    content_is_parts: bool = False
    inline_thought: str = "inline"
    own_thought: str = "field"
    has_calls: bool = True
    arguments_are_text: bool = False
    content_beside_calls: str | None = ""


def split_thought(content: str) -> tuple[str, str]:
    """(the thought that stands at the start of an answer, "" for none; the answer)."""
    found = _parts(content)
    return (found[1], found[3]) if found else ("", content)


def _parts(content: str) -> tuple[str, str, str, str] | None:
    """(what opens a thought that stands at the start, itself, what closes it, the rest) of an
    answer, together all of it; None where it begins with none. No pattern: of white space inside of
    a thought that would try all lengths."""
    begins = len(content) - len(content.lstrip())
    if not content.startswith(_OPENING, begins):
        return None
    inside, closing, behind = content[begins + len(_OPENING) :].partition(_CLOSING)
    if not closing:
        return None
    thought, rest = inside.lstrip(), behind.lstrip()
    opening = content[: begins + len(_OPENING) + len(inside) - len(thought)]
    core = thought.rstrip()
    return opening, core, thought[len(core) :] + closing + behind[: -len(rest) or None], rest


def thought_of(message: Message) -> str:
    return message.thought.strip() or split_thought(message.content)[0]


def has_thoughts(conversation: Conversation) -> bool:
    """Whether an answer that is trained thinks first."""
    return any(m.role == "assistant" and m.trained and thought_of(m) for m in conversation.messages)


def with_system_in_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same number of turns, or fewer by one: a first system turn stands in the user turn behind
    it. Raises Unusable where there is none."""
    if messages[0].role != "system":
        return messages
    if len(messages) < 2 or messages[1].role != "user":
        raise Unusable("the chat template has no system turn, and no user turn follows this one")
    system, user, *rest = messages
    return (replace(user, content=f"{system.content}\n\n{user.content}"), *rest)


def as_turns(messages: tuple[Message, ...], style: TurnStyle, mark: Mark) -> list[Turn]:
    """What `apply_chat_template` is given; each content is what `mark` makes of it, asked with the
    number of the message. Raises Unusable for calls that the template cannot write."""
    if not style.has_calls and any(m.tool_calls or m.role == "tool" for m in messages):
        raise Unusable("the chat template has no place for tool calls")
    return [_turn(at, message, style, mark) for at, message in enumerate(messages)]


def _turn(at: int, message: Message, style: TurnStyle, mark: Mark) -> Turn:
    turn: Turn = {"role": message.role}
    if message.role == "assistant":
        turn |= _answer(at, message, style, mark)
    else:
        turn["content"] = mark(at, message.content)
    if style.content_is_parts and turn["content"]:
        turn["content"] = [{"type": "text", "text": turn["content"]}]
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": mark(at, call.name),
                    "arguments": _arguments(at, call.arguments, style, mark),
                },
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        given = {"tool_call_id": message.call_id, "name": message.name}
        turn |= {key: value for key, value in given.items() if value}
    return turn


def _answer(at: int, message: Message, style: TurnStyle, mark: Mark) -> Turn:
    before, thought, behind, answer = "<think>\n", message.thought.strip(), "\n</think>\n\n", ""
    if thought:
        answer, way = message.content, style.own_thought
    elif found := _parts(message.content):
        before, thought, behind, answer = found
        way = style.inline_thought
    if not thought:
        alone = style.content_beside_calls if message.tool_calls else ""
        return {"content": mark(at, message.content) or alone}
    if way == "field":
        # the thought first: marks are numbered in the order of the text
        return {"reasoning_content": mark(at, thought), "content": mark(at, answer)}
    if way == "hidden":
        behind = behind.replace(_CLOSING, HIDDEN_CLOSING)
    return {"content": before + mark(at, thought) + behind + mark(at, answer)}


def _arguments(at: int, arguments: str, style: TurnStyle, mark: Mark) -> Any:
    if style.arguments_are_text:
        return mark(at, arguments)
    return _marked(at, json.loads(arguments), mark)


def _marked(at: int, value: Any, mark: Mark) -> Any:
    if isinstance(value, str):
        return mark(at, value)
    if isinstance(value, list):
        return [_marked(at, item, mark) for item in value]
    if isinstance(value, dict):
        return {key: _marked(at, item, mark) for key, item in value.items()}
    return value
