"""Documents in passages: what a model is asked about, and what is put beside a question."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainer.corpus.examples import Conversation, Example, Text
from trainer.corpus.headings import Outline
from trainer.dataset.inputs import reader_of
from trainer.dataset.unanswerable import subject
from trainer.runtime.naming import digest
from trainer.settings import Settings
from trainer.storage import Fetched
from trainer.tokenization.chunking import text_boundary

PASSAGE_CHARS = 1500
LEAST_PASSAGE_CHARS = 80
ANSWERS, MOST_ANSWER_CHARS = 12, 320  # of records in a passage
SECTIONS = " > "  # between the headings above a passage, outermost first


@dataclass(frozen=True)
class Passage:
    """A stretch of a document: `source` is its file, `section` the headings above it."""

    text: str
    source: str
    section: str
    answers: tuple[str, ...] = ()
    """of records, of which `text` is made up: each is a statement"""

    @property
    def key(self) -> str:
        return digest(json.dumps([self.section, self.text, *self.answers]))


def passages(examples: Iterable[tuple[int, Example]], names: Sequence[str]) -> Iterator[Passage]:
    """Those of the documents among `examples`, which come with the number of their file, each
    once."""
    seen = set()
    for source, example in examples:
        if isinstance(example, Text):
            for passage in _passages(example, names[source]):
                if passage.key not in seen:
                    seen.add(passage.key)
                    yield passage


def passages_of(settings: Settings, files: list[Fetched]) -> list[Passage]:
    """All of the documents among `files`."""
    return list(passages(reader_of(settings, files), [file.name for file in files]))


def passages_of_records(
    examples: Iterable[tuple[int, Example]], names: Sequence[str]
) -> Iterator[Passage]:
    """The answers to questions about one thing, together, of the records that are one question
    with its answer; those that name nothing as they come."""
    found: dict[tuple[int, str], dict[str, None]] = {}
    for source, example in examples:
        if isinstance(example, Conversation) and (pair := _question_and_answer(example)):
            question, answer = pair
            found.setdefault((source, subject(question)), {})[answer] = None
    for (source, about), answers in found.items():
        each = tuple(answers)
        for first in range(0, len(each), ANSWERS):
            some = each[first : first + ANSWERS]
            yield Passage(" ".join(some), names[source], about, some)


def _question_and_answer(record: Conversation) -> tuple[str, str] | None:
    roles = [turn.role for turn in record.messages]
    if roles != ["user", "assistant"] or record.tools:
        return None
    question, answer = (turn.content.strip() for turn in record.messages)
    is_short = len(answer) <= MOST_ANSWER_CHARS and "\n" not in answer
    return (question, answer) if is_short else None


def _passages(document: Text, source: str) -> Iterator[Passage]:
    text, start = document.text, 0
    outline = Outline(document.headings)
    sections = sorted(heading.at for heading in document.headings)
    while start < len(text):
        end = len(text)
        if end - start > PASSAGE_CHARS:
            end = text_boundary(text, start, start + PASSAGE_CHARS, near_share=1 / 2)
        # A passage is of one section, but for those that are too short to be asked about.
        following = bisect_left(sections, start + LEAST_PASSAGE_CHARS)
        end = min((end, *sections[following : following + 1]))
        if len(words := text[start:end].strip()) >= LEAST_PASSAGE_CHARS:
            yield Passage(words, source, SECTIONS.join(outline.path(end - 1)))
        start = end
