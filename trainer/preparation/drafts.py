"""A question with its answer as a model made it, before anything of it is kept."""

from dataclasses import dataclass
from typing import Any

from trainer.runtime.json_records import well_formed

# How drafts are made and chosen. Raised when that changes: what was made by another method is made
# again, and a run on it is another run.
METHOD = "statements 10"


@dataclass(frozen=True)
class Draft:
    """`statement` is its number in the passage; `reason` says why it is left out; `named` is a
    question that names what it is about, whatever else the documents say; `guessed` one in the
    model's own words, which likelihoods alone speak for."""

    statement: int
    question: str
    answer: str
    reason: str | None = None
    named: bool = False
    guessed: bool = False


def read_drafts(value: Any) -> list[Draft]:
    """What `astuple` made of drafts, back from JSON. Raises ValueError for anything else."""
    with well_formed("drafts"):
        found = [Draft(*values) for values in value]
    for draft in found:
        words = (draft.question, draft.answer, draft.reason or "")
        numbers = (draft.statement, draft.named, draft.guessed)
        if not all(isinstance(n, int) for n in numbers) or not all(
            isinstance(w, str) for w in words
        ):
            raise ValueError("not the form of drafts")
    return found
