"""The turns of a conversation, as chat APIs, ShareGPT and trl write them -> `Message`s."""

import json
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
from trainer.corpus.recorded_thoughts import divided, refuse_open_thought

MOST_TURNS = 1000  # of one conversation, each of which is rendered behind all those before it
_ROLE_NAMES = {
    "developer": "system",
    **dict.fromkeys(("human", "prompter", "customer", "client", "visitor", "requester"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "ai", "agent", "support"), "assistant"),
    **dict.fromkeys(("chatbot", "function_call"), "assistant"),
    **dict.fromkeys(("function", "observation", "function_response"), "tool"),
}
# Of turns that have no more than these and their words, which most are.
_SPEAKERS = {"user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
SPEAKER_KEYS = ("role", "from", "speaker", "sender", "author")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_USED = {"weight", "train", *_THOUGHTS} | {
    *("tool_calls", "function_call", "tool_call_id", "name", "type", "id")
}
_KNOWN = {"role", "content"} | _USED, {"from", "value"} | _USED  # keys of turns that have no more
# What to do with parts of a content that have a place of their own.
_INSTEAD = {
    "thinking": "; write its words as reasoning_content of the turn",
    "tool_use": "; write it as one of the tool_calls of the turn",
    "tool_result": "; write it as a turn of the role tool",
}
BEHIND = "turns behind the last answer of a conversation, which are not used"
_MOST_LITERAL = 1 << 18  # characters


def checked(
    messages: Sequence[Message], what: str, counts: Counter[str], tools: object = None
) -> Conversation:
    """`messages` as an example, where something of them is trained; what is not used is added to
    `counts`. Raises Unusable."""
    if len(messages) > MOST_TURNS:
        raise Unusable(f"{what} holds more than {MOST_TURNS:,} turns")
    if sum(len(m.content) for m in messages) > LONGEST_FIELD:
        raise Unusable(f"{what} is longer than {LONGEST_FIELD >> 20} Mi characters")
    last, is_trained, is_marked, has_tools = -1, False, False, False
    for at, message in enumerate(messages):
        if message.role == "assistant":
            last, is_trained = at, is_trained or message.trained
            is_marked = is_marked or "<" in message.content
        elif message.role == "tool":
            has_tools = True
    if last < 0:
        raise Unusable(f"{what} holds no assistant turn")
    if not is_trained:
        raise Unusable(f"{what} holds no assistant turn that is to be trained")
    if behind := len(messages) - 1 - last:
        counts[BEHIND] += behind
    if is_marked:
        messages = [_thinking_apart(message, what, counts) for message in messages]
    if has_tools:
        messages = list(_with_tool_names(messages))
    return Conversation(tuple(messages), _tools(tools))


def _thinking_apart(message: Message, what: str, counts: Counter[str]) -> Message:
    if message.role != "assistant" or not message.trained:
        return message
    if not message.tool_calls:
        refuse_open_thought(message.content, what)
    thought, answer = divided(message.content, what, counts)
    if answer == message.content:
        return message
    return replace(message, thought=message.thought or thought, content=answer)


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
    read: list[Message | None] = []
    for at, part in enumerate(turns):
        if isinstance(part, dict) and "output" in part:
            read += [_message(turn, f"{name}[{at}]", unused) for turn in _round(part)]
        else:
            read.append(_message(part, f"{name}[{at}]", unused))
    return [message for message in read if message is not None]


def _round(part: dict[str, Any]) -> Sequence[object]:
    """The turns of a question with its answer, as XTuner writes them; anything else as it is."""
    if _key_of(SPEAKER_KEYS, part):
        return (part,)
    speakers = {"system": "system", "input": "user", "output": "assistant"}
    said = ((role, part[key]) for key, role in speakers.items() if not _is_blank(part.get(key)))
    rest = {key: value for key, value in part.items() if key not in speakers}
    return [{"role": role, "content": words, **rest} for role, words in said]


def parsed(value: object) -> object:
    """A list or an object that a table keeps as JSON text, or as Python writes it, as itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return _literal(value)
    return value


def _literal(text: str) -> object:
    """What pandas makes of a list in a CSV file; `text` where it is none."""
    if len(text) > _MOST_LITERAL:
        return text
    try:
        return literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text


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
    words = turn.get("content", turn.get("value"))
    if len(turn) == 2 and isinstance(words, str):
        name = turn.get("role", turn.get("from"))
        if isinstance(name, str) and name in _SPEAKERS:
            return Message(_SPEAKERS[name], checked_text(words, f'"{where}.content"'))
    speaker, content = _speaker_and_content(turn, where)
    role = role_of(speaker)
    if role is None:
        said = f" {printable(speaker[:40])} and" if isinstance(speaker, str) else ""
        key = _key_of(SPEAKER_KEYS, turn)
        raise Unusable(f'"{where}.{key}" is{said} none of {", ".join(ROLES)}')
    if role == "system" and _is_blank(content):
        return None
    if not any(known.issuperset(turn) for known in _KNOWN):
        used = _USED | {_key_of(SPEAKER_KEYS, turn), _key_of(CONTENT_KEYS, turn)}
        extra = (key for key, value in turn.items() if key not in used and not _is_blank(value))
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
    by, says = _key_of(SPEAKER_KEYS, turn), _key_of(CONTENT_KEYS, turn)
    speaker, content = turn.get(by), turn.get(says)
    has_calls = bool(turn.get("tool_calls") or turn.get("function_call"))
    missing = [] if says or has_calls else ["content"]
    missing += [] if speaker is not None or "role" in turn else ["role"]
    if missing:
        both = "; give each turn a role and a content"
        raise Unusable(f'"{where}" has no {" and no ".join(missing)}{both}')
    return speaker.strip().casefold() if isinstance(speaker, str) else speaker, content


def _key_of(names: Sequence[str], turn: Mapping[str, Any]) -> str:
    """The first of `names` that it has; empty for none."""
    for name in names:
        if name in turn:
            return name
    return ""


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
            raise Unusable(f"{what} is {kind}, not text{_INSTEAD.get(kind, '')}")
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
    if weight not in (0, 1):
        written = str(weight)[:40]
        raise Unusable(f'"{where}.weight" is {written}: a turn is trained (1) or not (0)')
    return weight == 1


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
    for at, call in enumerate(calls):
        yield _call(call, f'"{where}.tool_calls[{at}]"')
    if speaker == "function_call":
        yield _call(content, f'"{where}", a function_call,')
    elif turn.get("function_call"):
        yield _call(turn["function_call"], f'"{where}.function_call"')


def _call(value: object, what: str) -> ToolCall:
    call = parsed(value)
    if not isinstance(call, dict):
        raise Unusable(f"{what} is {json_type(call)}, not an object")
    function = parsed(call.get("function") or call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable(f"{what} names no function")
    given = parsed(function.get("arguments", function.get("parameters")))
    if given is None or given == "":
        given = {}
    if not isinstance(given, dict):
        raise Unusable(f"{what} has arguments that are no JSON object")
    name = checked_text(function["name"], f"the name that {what} gives")
    return ToolCall(name, _json_text(given), _text(call.get("id")))


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
