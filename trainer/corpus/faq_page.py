"""Questions and answers that a page says of itself, as schema.org has them: `FAQPage`, `QAPage`.

They stand in a script of the page as JSON-LD, or its elements are marked as microdata or RDFa.
"""

import json
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

from trainer.corpus.examples import Notice, Unusable
from trainer.corpus.packages import Element
from trainer.corpus.page_content import parsed

_SCRIPT, _END = re.compile("<script", re.I), re.compile("</script", re.I)
_KINDS = ("FAQPage", "QAPage")
_ANSWERS = ("acceptedAnswer", "suggestedAnswer")
_MOST_LEVELS = 4
_WORD = re.compile(r"[^\W_]+")
_MARKED = re.compile(r"schema\.org/?(?:FAQPage|QAPage|Question)?[\"']", re.IGNORECASE)
_TAG = re.compile(r"<[a-z/!]|&#?\w+;", re.IGNORECASE)


def faq_in_page(page: str) -> Iterator[dict[str, Any] | Notice]:
    """{"question": …, "answers": […]} of all that the text of a web page holds. The first answer is
    the accepted one; without it there are none."""
    asked = set()
    for found in _in_scripts(page):
        if not isinstance(found, Notice):
            asked.add(_bare(found["question"]))
        yield found
    if any(kind in page for kind in ("FAQPage", "QAPage", "Question")) and _MARKED.search(page):
        marked = {"@type": _KINDS[0], "mainEntity": list(_marked_questions(page))}
        yield from (r for r in faq_records(marked) if _bare(r["question"]) not in asked)


def _in_scripts(page: str) -> Iterator[dict[str, Any] | Notice]:
    for script in _linked_data(page):
        if not any(kind in script for kind in _KINDS):
            continue
        try:
            yield from faq_records(json.loads(script, strict=False))
        except (ValueError, RecursionError):
            yield Notice("its FAQPage is broken JSON and is not used")


def unsaid(words: str, asked: Iterable[dict[str, Any]]) -> str:
    """The blocks of a page's `words` that none of its questions and answers holds; empty where
    only headings are left."""
    known = [_bare(t) for record in asked for t in (record["question"], *record["answers"])]
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


def faq_records(data: Any, level: int = 0) -> Iterator[dict[str, Any]]:
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
        accepted, suggested = (list(_texts(question.get(kind))) for kind in _ANSWERS)
        answers = [*accepted, *suggested] if accepted else []
        name, more = question.get("name"), question.get("text")  # the first may be but a title
        if isinstance(name, str):
            asks = [_plain(part) for part in (name, more) if isinstance(part, str)]
            yield {
                "question": "\n\n".join(dict.fromkeys(filter(None, asks))),
                "answers": list(map(_plain, answers)),
            }


def _texts(answers: Any) -> Iterator[str]:
    for answer in answers if isinstance(answers, list) else [answers]:
        if isinstance(answer, dict) and isinstance(answer.get("text"), str):
            yield answer["text"]


def _marked_questions(page: str) -> Iterator[dict[str, Any]]:
    """The questions among the elements of a page, as JSON-LD would have them."""
    for element in parsed(page).iter():
        if isinstance(element.tag, str) and _kind_of(element) == "Question":
            properties = dict(_properties(element))
            yield properties | {
                kind: [dict(_properties(part)) for part in _scopes(element, kind)]
                for kind in _ANSWERS
            }


def _kind_of(element: Element) -> str:
    """Of what schema.org's kind an element says that it is."""
    kind = element.get("itemtype") or element.get("typeof") or ""
    return str(kind).strip().rstrip("/").rpartition("/")[2].rpartition(":")[2]


def _property_of(element: Element) -> str:
    named = element.get("itemprop") or element.get("property") or ""
    return str(named).strip().rpartition(":")[2]


def _scopes(element: Element, kind: str) -> list[Element]:
    """The parts of an element that are something of their own, as its answers are."""
    return [part for part in element.iterdescendants() if _property_of(part) == kind]


def _properties(element: Element) -> Iterator[tuple[str, str]]:
    """Its own `name` and `text`, the first of each, as HTML."""
    from lxml import etree

    for kind in ("text", "name"):
        for part in _scopes(element, kind):
            above = next(a for a in part.iterancestors() if a is element or _kind_of(a))
            if above is element:
                inside = deepcopy(part)
                inside.tag = "div"  # what a heading says, without its mark
                words = part.get("content") or etree.tostring(inside, encoding=str, with_tail=False)
                yield kind, words
                break


def _plain(text: str) -> str:
    """Without HTML, which both may hold."""
    from trainer.corpus.html import fragment

    if not _TAG.search(text):
        return text
    try:
        return fragment(text)
    except Unusable:
        return ""
