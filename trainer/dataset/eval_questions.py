"""Held-out records that are asked as questions: one turn, with a reference answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.corpus.examples import Conversation, Example

MOST_QUESTIONS = 128  # answered twice; more would make the evaluation longer than a short run


_ONE_TURN = ["user", "assistant"]


@dataclass(frozen=True)
class Question:
    """A held-out record with a single question and its reference answer."""

    question: str
    answer: str


def questions_of(examples: Sequence[Example]) -> list[Question]:
    """The records of one question and one answer, at most MOST_QUESTIONS, in key order."""
    found = []
    for record in sorted(examples, key=lambda e: e.key):
        if isinstance(record, Conversation) and [m.role for m in record.messages] == _ONE_TURN:
            asked, answered = record.messages
            found.append(Question(asked.content, answered.content.strip()))
    return found[:MOST_QUESTIONS]
