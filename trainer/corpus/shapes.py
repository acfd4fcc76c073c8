"""What programs make of records when they export them -> the records, or why there are none.

pandas writes a table in any of six ways, datasets a list for each column; SQuAD has articles,
schema.org a FAQPage, Label Studio tasks; conversations of other programs are in `exports`. Each is
recognised by keys that nothing else has.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trainer.corpus.columns import quoted
from trainer.corpus.conversations import SPEAKER_KEYS
from trainer.corpus.examples import NextTable, Notice, asks, printable
from trainer.corpus.exports import is_export
from trainer.corpus.faq_page import faq_records

Fits = Callable[[Iterable[str]], bool]
"""Whether columns of these names make a record."""

_MOST_LEVELS = 4
_KEPT_FOR_JUDGING = ("test", "validation", "valid", "val", "eval", "evaluation", "dev")


def table(data: Any, fits: Fits) -> tuple[Any, list[Notice]]:
    """The list of records that a JSON file holds in another shape, else `data` itself; and what of
    it is not used. Between records of several tables stands a `NextTable`.

    An object whose own columns make a record is one, whatever lists it holds.
    """
    questions = list(faq_records(data))
    if questions:
        return questions, []
    if not isinstance(data, dict) or not data:
        return data, []
    columns, rows = data.get("columns"), data.get("data")
    if isinstance(columns, list) and isinstance(rows, list) and _are_rows(columns, rows):
        return [dict(zip(map(str, columns), row, strict=True)) for row in rows], []
    if isinstance(data.get("schema"), dict) and _is_table(rows):
        return rows, []
    if _are_conversations(found := data.get("conversations"), fits):
        return found, []
    values = list(data.values())
    if all(isinstance(value, dict) for value in values):
        turned = _of_objects(data, values, fits)
        if turned != [data]:
            return turned, []
    if fits(data) and _are_columns(values):
        return [dict(zip(data, row, strict=True)) for row in zip(*values, strict=True)], []
    if fits(data) or is_export(data) or _is_table(data.get("paragraphs")):
        return [data], []
    if all(isinstance(value, str) and asks(name) for name, value in data.items()):
        return [{"question": name, "answer": value} for name, value in data.items()], []
    return _of_lists(data, fits)


def _are_conversations(rows: Any, fits: Fits) -> bool:
    """Whether the first of `rows` has turns of its own, and is none."""
    first = rows[0] if _is_table(rows) else {}
    return fits(first) and not any(key in first for key in SPEAKER_KEYS)


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


def _of_objects(data: dict[str, Any], values: list[dict[str, Any]], fits: Fits) -> list[Any]:
    """A column of values by row, or rows by name."""
    names = values[0].keys()
    if not all(value.keys() == names for value in values):
        return list(values) if not fits(data) and all(map(fits, values)) else [data]
    if fits(data):
        return [{column: data[column][row] for column in data} for row in names]
    return values if fits(names) else [data]


def _of_lists(data: dict[str, Any], fits: Fits) -> tuple[Any, list[Notice]]:
    """The only list of objects below `data`, wherever it is; of several those of records."""
    found = dict(_lists(data, ""))
    tables = {name: rows for name, rows in found.items() if _is_table(rows)} or found
    if len(tables) == 1:
        ((name, rows),) = tables.items()
        is_named = "." in name and isinstance(rows[0], dict) and not fits(rows[0])
        return [data] if is_named else rows, []
    fitting = {name: rows for name, rows in tables.items() if _is_table(rows) and fits(rows[0])}
    kept = [name for name in fitting if name.rpartition(".")[2].casefold() in _KEPT_FOR_JUDGING]
    taken = [name for name in fitting if name not in kept]
    if not taken:  # nor where there is no list at all
        return [data], []
    notices = [Notice(f"records are taken of its lists {quoted(map(printable, taken))}")]
    if kept:
        notices.append(
            Notice(
                f"not used: its list {quoted(map(printable, kept))}, which its name keeps for "
                "judging; give it in a file of its own, as QLORA_EVAL_URI"
            )
        )
    if rest := [name for name in tables if name not in fitting]:
        notices.append(Notice(f"not used: its lists {quoted(map(printable, rest))}"))
    return [row for name in taken for row in (*fitting[name], NextTable())], notices


def _lists(value: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """(name, list) of the outermost lists of objects or of lists below `value`."""
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        yield path, value
    elif isinstance(value, dict) and path.count(".") < _MOST_LEVELS:
        for name, part in value.items():
            yield from _lists(part, f"{path}.{name}" if path else str(name))


def _are_rows(columns: list[Any], rows: list[Any]) -> bool:
    return all(isinstance(row, list) and len(row) == len(columns) for row in rows)


def _are_columns(values: list[Any]) -> bool:
    """Whether each is a list of as many values, none of which is an object, as a turn is."""
    if not all(isinstance(value, list) for value in values) or not values[0]:
        return False
    return all(len(v) == len(values[0]) and not any(isinstance(x, dict) for x in v) for v in values)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
