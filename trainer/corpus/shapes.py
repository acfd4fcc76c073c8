"""What programs make of records when they export them -> the records, or why there are none.

pandas writes a table in any of five ways, datasets a list for each column; SQuAD has articles,
schema.org a FAQPage, ChatGPT a tree of messages for each conversation, Label Studio tasks. Each is
recognised by keys that nothing else has.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trainer.corpus.columns import Columns, layouts, quoted
from trainer.corpus.examples import Unusable, printable
from trainer.corpus.faq_page import faq_records

Fits = Callable[[Iterable[str]], bool]
"""Whether columns of these names make a record."""

OTHER_MESSAGES = "not used: messages of ChatGPT's export that are no text of the user or ChatGPT"
_MOST_MESSAGES = 100_000  # of one conversation, forks included


def table(data: Any, fits: Fits) -> Any:
    """The list of records that a JSON file holds in another shape; else `data` itself.

    An object whose own columns make a record is one, whatever lists it holds.
    """
    questions = list(faq_records(data))
    if questions:
        return questions
    if not isinstance(data, dict) or not data:
        return data
    columns, rows = data.get("columns"), data.get("data")
    if isinstance(columns, list) and isinstance(rows, list) and _are_rows(columns, rows):
        return [dict(zip(map(str, columns), row, strict=True)) for row in rows]
    values = list(data.values())
    if all(isinstance(value, dict) for value in values):
        return _of_objects(data, values, fits)
    if fits(data) and _are_columns(values):
        return [dict(zip(data, row, strict=True)) for row in zip(*values, strict=True)]
    lists = [value for value in values if _is_table(value)]
    return lists[0] if len(lists) == 1 and not fits(data) else [data]


def squad(record: Any) -> Iterator[Any]:
    """The questions of one article of SQuAD's own files; anything else as it is."""
    if not isinstance(record, dict) or not _is_table(record.get("paragraphs")):
        yield record
        return
    for paragraph in record["paragraphs"]:
        questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(questions, list):
            yield record
            return
        for asked in questions:
            if isinstance(asked, dict):
                yield {"context": paragraph.get("context")} | asked


def reshaped(
    record: dict[str, Any], columns: Columns, counts: Counter[str]
) -> dict[str, Any] | None:
    """The record that one of ChatGPT's conversations or of Label Studio's tasks is; None for
    another. What of it is not used is added to `counts`. Raises Unusable."""
    if isinstance(record.get("mapping"), dict):
        return {"messages": list(_chatgpt(record["mapping"], record.get("current_node"), counts))}
    if isinstance(record.get("data"), dict) and isinstance(record.get("annotations"), list):
        return _label_studio(record["data"], record["annotations"], columns)
    return None


def _of_objects(data: dict[str, Any], values: list[dict[str, Any]], fits: Fits) -> list[Any]:
    """A column of values by row, or rows by name."""
    names = values[0].keys()
    if not all(value.keys() == names for value in values):
        return list(values) if not fits(data) and all(map(fits, values)) else [data]
    if fits(data):
        return [{column: data[column][row] for column in data} for row in names]
    return values if fits(names) else [data]


def _are_rows(columns: list[Any], rows: list[Any]) -> bool:
    return all(isinstance(row, list) and len(row) == len(columns) for row in rows)


def _are_columns(values: list[Any]) -> bool:
    """Whether each is a list of as many values, none of which is an object, as a turn is."""
    if not all(isinstance(value, list) for value in values) or not values[0]:
        return False
    return all(len(v) == len(values[0]) and not any(isinstance(x, dict) for x in v) for v in values)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


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
        parents = {n.get("parent") for n in mapping.values() if isinstance(n, dict)}
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
