"""Records that are asked as questions: one turn, with a reference answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.corpus.examples import Conversation, Example
from trainer.tokenization.turns import split_thought

MOST_QUESTIONS = 128  # answered twice; more would make the evaluation longer than a short run
MOST_TRAINED = 32  # of those that were trained, answered once
_ONE_TURN = ["user", "assistant"]


@dataclass(frozen=True)
class Question:
    """A record with a single question and its reference answer."""

    question: str
    answer: str


def questions_of(examples: Sequence[Example], most: int = MOST_QUESTIONS) -> list[Question]:
    """The records of one question and one answer, at most `most`, in key order."""
    found = []
    for record in sorted(examples, key=lambda e: e.key):
        if isinstance(record, Conversation) and [m.role for m in record.messages] == _ONE_TURN:
            asked, answered = record.messages
            if reference := split_thought(answered.content)[1].strip():  # empty beside a call
                found.append(Question(asked.content, reference))
    return found[:most]
