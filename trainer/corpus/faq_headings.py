"""Questions of a document whose headings ask them: a FAQ, as people write one in Markdown."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from trainer.corpus.examples import Heading, Text
from trainer.corpus.headings import Outline

LEAST_QUESTIONS = 3  # fewer may be rhetorical
_ASKS = re.compile("[?\uff1f\u061f]\\W*$")  # also as Chinese and Arabic write it
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*(?:\n|$)")
Record = dict[str, str]


@dataclass(frozen=True)
class _Section:
    heading: Heading
    start: int  # of the heading
    body: int  # where it begins
    end: int

    @property
    def asks(self) -> bool:
        return bool(_ASKS.search(self.heading.title))


def questions_in_headings(document: Text) -> tuple[list[Record], str]:
    """({"question": …, "answer": …} of each heading that asks something, with what stands below
    it; the text that is left, empty where it is headings alone).

    None where fewer than three do, or fewer than half of those with words below them. Where one
    question is asked of several things it is worded with the heading above it.
    """
    sections = [s for s in _whole(document) if document.text[s.body : s.end].strip()]
    asking = [section for section in sections if section.asks]
    if len(asking) < max(LEAST_QUESTIONS, len(sections) / 2):
        return [], document.text
    outline, times = Outline(document.headings), Counter(s.heading.title for s in asking)
    records = []
    for section in asking:
        question, above = section.heading.title, outline.path(section.start)
        if times[question] > 1 and above:
            question = f"{above[-1]}: {question}"
        answer = document.text[section.body : section.end].strip()
        records.append({"question": question, "answer": answer})
    return records, _left(document, asking)


def _sections(document: Text) -> list[_Section]:
    """Each from its heading to the next one."""
    found, text = [], document.text
    starts = [heading.at for heading in document.headings]
    for heading, (start, end) in zip(
        document.headings, pairwise([*starts, len(text)]), strict=True
    ):
        body = text.find("\n", start, end) + 1 or end
        if not text[start:body].lstrip().startswith("#"):
            underline = _UNDERLINE.match(text, body, end)
            body = underline.end() if underline else body
        found.append(_Section(heading, start, body, end))
    return found


def _whole(document: Text) -> list[_Section]:
    """The same, but that what is asked ends where the next thing of its level begins."""
    found: list[_Section] = []
    for section in _sections(document):
        last = found[-1] if found else None
        deeper = last and last.asks and section.heading.level > last.heading.level
        if last and deeper and not section.asks:
            found[-1] = replace(last, end=section.end)
        else:
            found.append(section)
    return found


def _left(document: Text, asking: list[_Section]) -> str:
    """The text without them."""
    done, kept = 0, []
    for section in asking:
        kept.append(document.text[done : section.start])
        done = section.end
    kept.append(document.text[done:])
    left = "".join(kept).strip()
    headings = {heading.title for heading in document.headings}
    lines = (line.strip().strip("#=-").strip() for line in left.splitlines())
    return left if any(line and line not in headings for line in lines) else ""
