"""Records that are asked as questions: the last question of each, with what stands before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from trainer.corpus.examples import Conversation, Example, Message
from trainer.tokenization.turns import split_thought

MOST_QUESTIONS = 128  # answered twice; more would make the evaluation longer than a short run
MOST_TRAINED = 32  # of those that were trained, answered once
MOST_MATCHED = 320  # of those whose answer is looked at before the training


@dataclass(frozen=True)
class Question:
    """The last question of a record and its reference answer."""

    question: str
    answer: str
    earlier: tuple[Message, ...] = ()
    """what is given before it: a system prompt, questions with their answers"""

    @property
    def turns(self) -> tuple[Message, ...]:
        """All that is given."""
        return (*self.earlier, Message("user", self.question))

    @property
    def as_text(self) -> str:
        """All that is given, for a reader."""
        before = (f"[{turn.role}] {turn.content.strip()}\n" for turn in self.earlier)
        return "".join(before) + self.question


def questions_of(examples: Sequence[Example], most: int = MOST_QUESTIONS) -> list[Question]:
    """Of the records that hold a question with its answer, at most `most`, in key order."""
    ordered = sorted(examples, key=lambda e: e.key)
    found = (question for record in ordered for question in _last_question(record))
    return list(islice(found, most))


def _last_question(record: Example) -> Iterator[Question]:
    """What comes after the last answer is left out. Tools are not called here."""
    if not isinstance(record, Conversation) or record.tools:
        return
    turns = record.messages
    answers = (n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.trained)
    last = max(answers, default=0)
    if not last or turns[last - 1].role != "user":
        return
    if reference := split_thought(turns[last].content)[1].strip():  # empty beside a call
        yield Question(turns[last - 1].content, reference, turns[: last - 1])
