"""Questions and answers that a page says of itself, as schema.org has them: `FAQPage`, `QAPage`."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from trainer.corpus.examples import Notice, Unusable

_SCRIPT, _END = re.compile("<script", re.I), re.compile("</script", re.I)
_KINDS = ("FAQPage", "QAPage")
_MOST_LEVELS = 4
_WORD = re.compile(r"[^\W_]+")
_TAG = re.compile(r"<[a-z/!]|&#?\w+;", re.IGNORECASE)


def faq_in_page(page: str) -> Iterator[dict[str, str] | Notice]:
    """{"question": …, "answer": …} of all that the text of a web page holds."""
    for script in _linked_data(page):
        if not any(kind in script for kind in _KINDS):
            continue
        try:
            yield from faq_records(json.loads(script, strict=False))
        except (ValueError, RecursionError):
            yield Notice("its FAQPage is broken JSON and is not used")


def unsaid(words: str, asked: Iterable[dict[str, str]]) -> str:
    """The blocks of a page's `words` that none of its questions and answers holds; empty where
    only headings are left."""
    known = [_bare(text) for record in asked for text in record.values()]
    blocks = [
        block for block in words.split("\n\n") if not any(_bare(block) in text for text in known)
    ]
    return "\n\n".join(blocks) if any(not block.startswith("#") for block in blocks) else ""


def _bare(text: str) -> str:
    """Its words alone, each between spaces."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _linked_data(page: str) -> Iterator[str]:
    """What stands in its scripts of JSON-LD."""
    at = 0
    while begin := _SCRIPT.search(page, at):
        start = page.find(">", begin.end()) + 1
        end = _END.search(page, start) if start else None
        if end is None:
            return
        if "application/ld+json" in page[begin.end() : start].lower():
            yield page[start : end.start()]
        at = end.end()


def faq_records(data: Any, level: int = 0) -> Iterator[dict[str, str]]:
    """The same of the JSON itself, which may be a list or have its parts in a `@graph`."""
    if isinstance(data, list) and level < _MOST_LEVELS:
        for part in data:
            if isinstance(part, dict) and ("@type" in part or "@graph" in part):
                yield from faq_records(part, level + 1)
    if not isinstance(data, dict):
        return
    if "@graph" in data and level < _MOST_LEVELS:
        yield from faq_records(data["@graph"], level + 1)
    kinds = data.get("@type")
    if not any(kind in _KINDS for kind in (kinds if isinstance(kinds, list) else [kinds])):
        return
    asked = data.get("mainEntity")
    for question in asked if isinstance(asked, list) else [asked]:
        if not isinstance(question, dict):
            continue
        answer = question.get("acceptedAnswer")
        answer = answer[0] if isinstance(answer, list) and answer else answer
        name, words = question.get("name"), answer.get("text") if isinstance(answer, dict) else None
        if isinstance(name, str) and isinstance(words, str):
            more = question.get("text")  # of a QAPage, whose name is a title
            asks = [_plain(part) for part in (name, more) if isinstance(part, str)]
            yield {
                "question": "\n\n".join(dict.fromkeys(filter(None, asks))),
                "answer": _plain(words),
            }


def _plain(text: str) -> str:
    """Without HTML, which both may hold."""
    from trainer.corpus.html import fragment

    if not _TAG.search(text):
        return text
    try:
        return fragment(text)
    except Unusable:
        return ""
