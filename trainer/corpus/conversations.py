"""The turns of a conversation, as chat APIs, ShareGPT and trl write them -> `Message`s."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.corpus.examples import (
    LONGEST_FIELD,
    ROLES,
    Conversation,
    Message,
    ToolCall,
    Unusable,
    checked_text,
    json_type,
    printable,
)

MOST_TURNS = 1000  # of one conversation, each of which is rendered behind all those before it
_ROLE_NAMES = {
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("function", "observation", "function_response"), "tool"),
}
_PLAIN = {"role", "content"}  # most turns have no more, and are most of what is read
_SPEAKERS = ["user", "assistant"]
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_USED = {"role", "content", "from", "value", "weight", "train", *_THOUGHTS} | {
    *("tool_calls", "function_call", "tool_call_id", "name", "type", "id")
}


def checked(messages: Sequence[Message], what: str, tools: object = None) -> Conversation:
    """`messages` as an example, where something of them is trained. Raises Unusable."""
    if len(messages) > MOST_TURNS:
        raise Unusable(f"{what} holds more than {MOST_TURNS:,} turns")
    if sum(len(m.content) for m in messages) > LONGEST_FIELD:
        raise Unusable(f"{what} is longer than {LONGEST_FIELD >> 20} Mi characters")
    if not any(m.role == "assistant" for m in messages):
        raise Unusable(f"{what} holds no assistant turn")
    if not any(m.role == "assistant" and m.trained for m in messages):
        raise Unusable(f"{what} holds no assistant turn that is to be trained")
    for message in messages:
        if "<think>" in message.content and message.role == "assistant":
            refuse_open_thought(message.content, what)
    if any(m.role == "tool" for m in messages):
        messages = list(_with_tool_names(messages))
    return Conversation(tuple(messages), _tools(tools))


def refuse_open_thought(answer: str, what: str) -> None:
    """Raises Unusable for an answer that begins with a thought and never gets to itself."""
    if answer.lstrip().startswith("<think>") and "</think>" not in answer:
        raise Unusable(f"{what} holds a thought that never ends: <think> without </think>")


def with_system(messages: list[Message], prompt: str) -> list[Message]:
    """The system prompt of the record goes first where the turns have none of their own."""
    if prompt and not any(message.role == "system" for message in messages):
        return [Message("system", prompt), *messages]
    return messages


def turns_of(turns: object, what: str, unused: dict[str, None]) -> list[Message]:
    """One message a turn; an empty system turn, which says nothing, is left out.

    `what` names the turns in a reason. Keys that hold something and are not used are added to
    `unused`. Raises Unusable.
    """
    turns = parsed(turns)
    if not isinstance(turns, list):
        raise Unusable(f"{what} is {json_type(turns)}, not a list")
    name = what.strip('"')
    read = (_message(turn, f"{name}[{at}]", unused) for at, turn in enumerate(turns))
    return [message for message in read if message is not None]


def parsed(value: object) -> object:
    """A list or an object that a table keeps as JSON text, as itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


def role_of(speaker: object) -> str | None:
    """One of `ROLES` for a speaker as data names it; None for another."""
    if not isinstance(speaker, str):
        return None
    name = speaker.strip().casefold()
    role = _ROLE_NAMES.get(name, name)
    return role if role in ROLES else None


def _message(turn: object, where: str, unused: dict[str, None]) -> Message | None:
    if not isinstance(turn, dict):
        raise Unusable(f'"{where}" is {json_type(turn)}, not an object')
    if turn.keys() == _PLAIN and turn["role"] in _SPEAKERS and isinstance(turn["content"], str):
        return Message(turn["role"], checked_text(turn["content"], f'"{where}.content"'))
    speaker, content = _speaker_and_content(turn, where)
    role = role_of(speaker)
    if role is None:
        raise Unusable(f'"{where}.role" is none of {", ".join(ROLES)}')
    if role == "system" and _is_blank(content):
        return None
    if not _USED.issuperset(turn):
        extra = (key for key, value in turn.items() if key not in _USED and not _is_blank(value))
        unused.update({f"{printable(str(key)[:40])} of a turn": None for key in extra})
    calls = tuple(_calls(turn, speaker, content, where)) if role == "assistant" else ()
    return Message(
        role,
        _content("" if speaker == "function_call" else content, where, role == "tool" or calls),
        _is_trained(turn, where),
        _thought(turn, where) if role == "assistant" else "",
        calls,
        call_id=_text(turn.get("tool_call_id")) if role == "tool" else "",
        name=_text(turn.get("name")) if role == "tool" else "",
    )


def _speaker_and_content(turn: Mapping[str, Any], where: str) -> tuple[object, object]:
    speaker = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    has_content = "content" in turn or "value" in turn
    has_calls = bool(turn.get("tool_calls") or turn.get("function_call"))
    missing = [] if has_content or has_calls else ["content"]
    missing += [] if speaker is not None or "role" in turn else ["role"]
    if missing:
        raise Unusable(f'"{where}" has no {" and no ".join(missing)}')
    return speaker.strip().casefold() if isinstance(speaker, str) else speaker, content


def _content(content: object, where: str, may_be_empty: object) -> str:
    """The words of a turn; parts of it are joined."""
    what = f'"{where}.content"'
    if isinstance(content, list):
        content = joined_parts(content, what)
    if may_be_empty and _is_blank(content):
        return ""
    if may_be_empty and isinstance(content, dict):  # what a tool gave
        content = json.dumps(content, ensure_ascii=False)
    return checked_text(content, what, may_be_empty=bool(may_be_empty))


def joined_parts(parts: Sequence[object], what: str) -> str:
    """The text of the `parts` that chat APIs make of a content. Raises Unusable."""
    name = what.strip('"')
    return "".join(_part(part, f'"{name}[{at}]"') for at, part in enumerate(parts))


def _part(part: object, what: str) -> str:
    if isinstance(part, dict):
        kind = printable(str(part.get("type", "an object"))[:40])
        if not isinstance(part.get("text"), str):
            raise Unusable(f"{what} is {kind}, not text")
        part = part["text"]
    return checked_text(part, what, may_be_empty=True)


def _is_trained(turn: Mapping[str, Any], where: str) -> bool:
    weight, train = turn.get("weight"), turn.get("train")
    if not (train is None or isinstance(train, bool)):
        raise Unusable(f'"{where}.train" is {json_type(train)}, not true or false')
    if train is False:
        return False
    if weight is None:
        return True
    if not isinstance(weight, int | float):
        raise Unusable(f'"{where}.weight" is {json_type(weight)}, not a number')
    return weight != 0


def _thought(turn: Mapping[str, Any], where: str) -> str:
    for key in _THOUGHTS:
        if isinstance(turn.get(key), str) and turn[key].strip():
            return checked_text(turn[key], f'"{where}.{key}"')
    return ""


def _calls(
    turn: Mapping[str, Any], speaker: object, content: object, where: str
) -> Iterator[ToolCall]:
    calls = parsed(turn.get("tool_calls")) or []
    if not isinstance(calls, list):
        raise Unusable(f'"{where}.tool_calls" is {json_type(calls)}, not a list')
    old = content if speaker == "function_call" else turn.get("function_call")
    found = [*calls, old] if old else calls
    for at, call in enumerate(found):
        call = parsed(call)
        if not isinstance(call, dict):
            raise Unusable(f'"{where}.tool_calls[{at}]" is {json_type(call)}, not an object')
        function = parsed(call.get("function") or call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable(f'"{where}.tool_calls[{at}]" names no function')
        given = parsed(function.get("arguments", function.get("parameters")))
        if given is None or given == "":
            given = {}
        if not isinstance(given, dict):
            raise Unusable(f'"{where}.tool_calls[{at}]" has arguments that are no JSON object')
        name = checked_text(function["name"], f'"{where}.tool_calls[{at}].name"')
        yield ToolCall(name, _json_text(given), _text(call.get("id")))


def _with_tool_names(messages: Sequence[Message]) -> Iterator[Message]:
    """Templates write which tool answered, and chat APIs say only which call it answers."""
    names: dict[str, str] = {}
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        known = names.get(message.call_id, "")
        if message.role == "tool" and not message.name and known:
            message = Message("tool", message.content, call_id=message.call_id, name=known)
        yield message


def _tools(value: object) -> str:
    tools = parsed(value)
    if _is_blank(tools):
        return ""
    if not isinstance(tools, list):
        raise Unusable(f'"tools" is {json_type(tools)}, not a list')
    return _json_text(tools)


def _json_text(value: object) -> str:
    """JSON with its own letters; half a surrogate pair, which no tokenizer takes, is refused."""
    return checked_text(json.dumps(value, ensure_ascii=False), "a tool or a call of one")


def _text(value: object) -> str:
    return checked_text(value, "the name of a tool") if value else ""


def _is_blank(value: object) -> bool:
    return (
        value is None
        or value == []
        or value == {}
        or (isinstance(value, str) and not value.strip())
    )
