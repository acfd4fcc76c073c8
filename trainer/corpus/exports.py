"""Conversations and tasks as programs export them -> the records that they are.

ChatGPT and DeepSeek have a tree of messages for each conversation, Claude and Open WebUI a list,
Gemini contents of parts; OpenAI's batches and logs have a request and its answer, Label Studio
tasks with annotations, ARC a question with its choices inside. Each is known by keys that nothing
else has.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.corpus.answers import FURTHER_ANSWERS
from trainer.corpus.columns import Columns, layouts, quoted
from trainer.corpus.examples import Unusable, printable
from trainer.corpus.message_trees import shown_turns

OTHER_PARTS = "not used: parts of Claude's export that are no text, such as files, tools, thoughts"
OTHER_TOOLS = "not used: tools of Gemini's form"
_REQUESTS = ("body", "request", "input", "inputs")
_ANSWERS = ("response", "output", "outputs")
_PAIRS = (("inputs", "outputs"), ("input", "output"), ("input", "expectedOutput"))


def is_export(record: Mapping[str, Any]) -> bool:
    """Whether `reshaped` has something to say of it."""
    return (
        isinstance(record.get("mapping"), dict)
        or isinstance(record.get("chat_messages"), list)
        or isinstance(record.get("contents"), list)
        or _open_webui(record) is not None
        or _is_task(record)
        or _has_stem(record)
        or _request(record) is not None
        or _pair(record) is not None
        or ("custom_id" in record and _answer(record) is not None)
    )


def _is_task(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list)


def _has_stem(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("question"), dict) and "stem" in record["question"]


def reshaped(
    record: dict[str, Any], columns: Columns, counts: Counter[str]
) -> dict[str, Any] | None:
    """The record that it is; None for one that no such program wrote. What of it is not used is
    added to `counts`. Raises Unusable."""
    if not is_export(record) or "preferred_output" in record:
        return None
    if isinstance(record.get("mapping"), dict):
        turns = shown_turns(record["mapping"], record.get("current_node"), counts)
        return {"messages": turns}
    if isinstance(record.get("chat_messages"), list):
        return {"messages": list(_claude(record["chat_messages"], counts))}
    if isinstance(record.get("contents"), list):
        return {"messages": list(_gemini(record, counts))}
    if (chat := _open_webui(record)) is not None:
        return chat
    if _has_stem(record):
        asked = record["question"]
        return record | {"question": asked["stem"], "choices": asked.get("choices")}
    if _is_task(record):
        return _label_studio(record["data"], record["annotations"], columns)
    if (pair := _pair(record)) is not None and _request(record) is None:
        return pair
    return _logged(record, counts)


def _pair(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a data set of an evaluation keeps as given and as expected, side by side."""
    for given, expected in _PAIRS:
        asked, answer = record.get(given), record.get(expected)
        if (
            isinstance(asked, dict)
            and isinstance(answer, dict)
            and not asked.keys() & answer.keys()
        ):
            return asked | answer
    return None


def _open_webui(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The branch that was shown last, which stands in a list beside all of them."""
    chat = record.get("chat")
    if not isinstance(chat, dict) or not isinstance(chat.get("messages"), list):
        return None
    system = {"system": chat["system"]} if _is_text(chat.get("system")) else {}
    kept = ("role", "content")
    turns = [
        {key: turn[key] for key in kept if key in turn} if isinstance(turn, dict) else turn
        for turn in chat["messages"]
    ]
    return {"messages": turns, **system}


def _claude(messages: list[Any], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if not isinstance(message, dict):
            raise Unusable('"chat_messages" holds what is no object')
        parts = message.get("content")
        blocks = [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
        texts = [b["text"] for b in blocks if b.get("type") == "text" and _is_text(b.get("text"))]
        words = "\n\n".join(texts) or message.get("text")
        others = sum(block.get("type") != "text" for block in blocks)
        others += sum(
            len(v) for k in ("attachments", "files") if isinstance(v := message.get(k), list)
        )
        if others:
            counts[OTHER_PARTS] += others
        if _is_text(words):
            yield {"role": message.get("sender"), "content": words}


def _gemini(record: dict[str, Any], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    system = record.get("systemInstruction", record.get("system_instruction"))
    if record.get("tools"):
        counts[OTHER_TOOLS] += 1
    if isinstance(system, dict):
        yield {"role": "system", "content": _joined(system, "systemInstruction")[0]}
    elif _is_text(system):
        yield {"role": "system", "content": system}
    for at, content in enumerate(record["contents"]):
        if not isinstance(content, dict):
            raise Unusable(f'"contents[{at}]" is no object')
        words, thought = _joined(content, f"contents[{at}]")
        yield {"role": content.get("role"), "content": words, "thinking": thought}


def _joined(content: Mapping[str, Any], what: str) -> tuple[str, str]:
    """(its words, its thought)."""
    parts = content.get("parts")
    said: tuple[list[str], list[str]] = [], []
    for at, part in enumerate(parts if isinstance(parts, list) else [parts]):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            said[part.get("thought") is True].append(part["text"])
        else:
            kind = next(iter(part), "empty") if isinstance(part, dict) else "no object"
            raise Unusable(f'"{what}.parts[{at}]" is {printable(str(kind)[:40])}, not text')
    return "".join(said[0]), "".join(said[1])


def _logged(record: dict[str, Any], counts: Counter[str]) -> dict[str, Any]:
    """A request to a chat API with its answer."""
    request, answer = _request(record), _answer(record, counts)
    if request is None:
        raise Unusable(
            "is an answer of a batch without its question, which stands in the file of requests; "
            "write both into messages"
        )
    if answer is None and not any(_is_answer(turn) for turn in request["messages"]):
        raise Unusable(
            "is a request without its answer, which stands in the file of answers of a batch; "
            "write both into messages"
        )
    more = {"tools": request["tools"]} if request.get("tools") else {}
    return {"messages": [*request["messages"], *(answer or [])], **more}


def _request(record: Mapping[str, Any]) -> dict[str, Any] | None:
    asked = (record.get(key) for key in _REQUESTS)
    with_turns = (a for a in asked if isinstance(a, dict) and isinstance(a.get("messages"), list))
    return next(with_turns, None)


def _is_answer(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "assistant"


def _answer(record: Mapping[str, Any], counts: Counter[str] | None = None) -> list[Any] | None:
    """The turns of the answer; of several that were asked for at once the first."""
    for value in (record.get(key) for key in _ANSWERS):
        body = value.get("body", value) if isinstance(value, dict) else None
        if not isinstance(body, dict):
            continue
        if isinstance(body.get("messages"), list):
            return list(body["messages"])
        choices = body.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else body
        if isinstance(first, dict) and isinstance(first.get("message"), dict):
            if counts is not None and isinstance(choices, list) and (more := _further(choices)):
                counts[FURTHER_ANSWERS] += more
            return [first["message"]]
    return None


def _further(choices: list[Any]) -> int:
    """How many say something else than the first."""
    first, *others = (str(c.get("message")) if isinstance(c, dict) else "" for c in choices)
    return len(set(others) - {first})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _label_studio(data: dict[str, Any], annotations: list[Any], columns: Columns) -> dict[str, Any]:
    """The data of a task and what the first annotation of it says, by the names they have."""
    kept = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    words_by: dict[str, list[str]] = {}
    regions = kept[0].get("result") if kept else []
    for region in regions if isinstance(regions, list) else []:
        value = region.get("value") if isinstance(region, dict) else None
        said = (value.get("text") or value.get("choices")) if isinstance(value, dict) else None
        name = str(region.get("from_name")) if isinstance(region, dict) else ""
        if isinstance(said, list) and said and all(isinstance(words, str) for words in said):
            words_by.setdefault(name, []).extend(said)
        elif isinstance(said, str) and region.get("type") == "textarea":
            words_by[name] = [said]
    found = {name: "\n".join(words) for name, words in words_by.items()}
    record = data | found
    fitting = layouts(record, columns)
    if fitting and (fitting[0].kind != "text" or columns.given("text")):
        return record
    in_data, in_results = (quoted(map(printable, map(str, names))) for names in (data, found))
    raise Unusable(
        f"is a task of Label Studio with the data {in_data} and the results {in_results}; set "
        "QLORA_QUESTION_COLUMN and QLORA_ANSWER_COLUMN to two of these, or QLORA_TEXT_COLUMN to one"
    )
