"""Conversations and tasks as programs export them -> the records that they are.

ChatGPT has a tree of messages for each conversation, Claude a list, Gemini contents of parts;
OpenAI's batches and logs have a request and its answer, Label Studio tasks with annotations, ARC
a question with its choices inside. Each is known by keys that nothing else has.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.corpus.columns import Columns, layouts, quoted
from trainer.corpus.examples import Unusable, printable

OTHER_MESSAGES = "not used: messages of ChatGPT's export that are no text of the user or ChatGPT"
OTHER_PARTS = "not used: parts of Claude's export that are no text, such as files, tools, thoughts"
OTHER_TOOLS = "not used: tools of Gemini's form"
_MOST_MESSAGES = 100_000  # of one conversation, forks included
_REQUESTS = ("body", "request", "input", "inputs")
_ANSWERS = ("response", "output", "outputs")
_PAIRS = (("inputs", "outputs"), ("input", "output"), ("input", "expectedOutput"))


def is_export(record: Mapping[str, Any]) -> bool:
    """Whether `reshaped` has something to say of it."""
    return (
        isinstance(record.get("mapping"), dict)
        or isinstance(record.get("chat_messages"), list)
        or isinstance(record.get("contents"), list)
        or (isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list))
        or (isinstance(record.get("question"), dict) and "stem" in record["question"])
        or _request(record) is not None
        or _pair(record) is not None
        or ("custom_id" in record and _answer(record) is not None)
    )


def reshaped(
    record: dict[str, Any], columns: Columns, counts: Counter[str]
) -> dict[str, Any] | None:
    """The record that it is; None for one that no such program wrote. What of it is not used is
    added to `counts`. Raises Unusable."""
    if not is_export(record) or "preferred_output" in record:
        return None
    if isinstance(record.get("mapping"), dict):
        return {"messages": list(_chatgpt(record["mapping"], record.get("current_node"), counts))}
    if isinstance(record.get("chat_messages"), list):
        return {"messages": list(_claude(record["chat_messages"], counts))}
    if isinstance(record.get("contents"), list):
        return {"messages": list(_gemini(record, counts))}
    if isinstance(record.get("question"), dict):
        asked = record["question"]
        return record | {"question": asked["stem"], "choices": asked.get("choices")}
    if isinstance(record.get("data"), dict):
        return _label_studio(record["data"], record["annotations"], columns)
    if (pair := _pair(record)) is not None and _request(record) is None:
        return pair
    return _logged(record)


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


def _logged(record: dict[str, Any]) -> dict[str, Any]:
    """A request to a chat API with its answer."""
    request, answer = _request(record), _answer(record)
    if request is None:
        raise Unusable(
            "is an answer of a batch without its question, which stands in the file of requests; "
            "write both into messages"
        )
    more = {"tools": request["tools"]} if request.get("tools") else {}
    return {"messages": [*request["messages"], *(answer or [])], **more}


def _request(record: Mapping[str, Any]) -> dict[str, Any] | None:
    asked = (record.get(key) for key in _REQUESTS)
    with_turns = (a for a in asked if isinstance(a, dict) and isinstance(a.get("messages"), list))
    return next(with_turns, None)


def _answer(record: Mapping[str, Any]) -> list[Any] | None:
    """The turns of the answer."""
    for value in (record.get(key) for key in _ANSWERS):
        body = value.get("body", value) if isinstance(value, dict) else None
        if not isinstance(body, dict):
            continue
        if isinstance(body.get("messages"), list):
            return list(body["messages"])
        choices = body.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else body
        if isinstance(first, dict) and isinstance(first.get("message"), dict):
            return [first["message"]]
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _chatgpt(
    mapping: Mapping[str, Any], current: object, counts: Counter[str]
) -> Iterator[dict[str, str]]:
    """The turns of the branch that was shown last."""
    turns: list[tuple[str, str]] = []
    for message in reversed(list(_branch(mapping, current))):
        role, words = _said(message)
        if words == "" or role == "system":
            continue
        if role not in ("user", "assistant") or words is None:
            counts[OTHER_MESSAGES] += 1
        elif turns and turns[-1][0] == role:  # what a tool did stood between them
            turns[-1] = role, f"{turns[-1][1]}\n\n{words}"
        else:
            turns.append((role, words))
    return ({"role": role, "content": words} for role, words in turns)


def _branch(mapping: Mapping[str, Any], current: object) -> Iterator[Mapping[str, Any]]:
    """The messages from the last to the first."""
    if not isinstance(current, str) or current not in mapping:
        nodes = (node for node in mapping.values() if isinstance(node, dict))
        parents = {above for node in nodes if isinstance(above := node.get("parent"), str)}
        leaves = [name for name in mapping if name not in parents]
        if len(leaves) != 1:
            raise Unusable('"mapping" has several ends and no "current_node" says which is shown')
        current = leaves[0]
    for _ in range(min(len(mapping), _MOST_MESSAGES)):
        node = mapping.get(current) if isinstance(current, str) else None
        if not isinstance(node, dict):
            return
        if isinstance(node.get("message"), dict):
            yield node["message"]
        current = node.get("parent")


def _said(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """(who speaks, the words; "" for none, None for what is no text)."""
    author, content = message.get("author"), message.get("content")
    role = str(author.get("role")) if isinstance(author, dict) else ""
    if not isinstance(content, dict) or content.get("content_type", "text") != "text":
        return role, None
    if message.get("recipient", "all") != "all":  # a tool
        return role, None
    parts = content.get("parts", [])
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return role, None
    return role, "\n".join(parts).strip("\n") if any(map(str.strip, parts)) else ""


def _label_studio(data: dict[str, Any], annotations: list[Any], columns: Columns) -> dict[str, Any]:
    """The data of a task and what the first annotation of it says, by the names they have."""
    kept = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    found: dict[str, Any] = {}
    for region in kept[0].get("result") or [] if kept else []:
        value = region.get("value") if isinstance(region, dict) else None
        said = (value.get("text") or value.get("choices")) if isinstance(value, dict) else None
        name = str(region.get("from_name")) if isinstance(region, dict) else ""
        if isinstance(said, list) and said and all(isinstance(words, str) for words in said):
            found[name] = "\n".join([*([found[name]] if name in found else []), *said])
        elif isinstance(said, str) and region.get("type") == "textarea":
            found[name] = said
    record = data | found
    fitting = layouts(record, columns)
    if fitting and (fitting[0].kind != "text" or columns.given("text")):
        return record
    in_data, in_results = (quoted(map(printable, map(str, names))) for names in (data, found))
    raise Unusable(
        f"is a task of Label Studio with the data {in_data} and the results {in_results}; set "
        "QLORA_QUESTION_COLUMN and QLORA_ANSWER_COLUMN to two of these, or QLORA_TEXT_COLUMN to one"
    )
