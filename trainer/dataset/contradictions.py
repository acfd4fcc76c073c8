"""Questions that are trained with different answers: the model can only learn one of them."""

from typing import Any

import numpy as np

from trainer.corpus.examples import printable
from trainer.dataset.selection import TEXT, Selection
from trainer.runtime.wording import counted


def contradictions(train: Selection) -> dict[str, Any]:
    """How many questions have different answers, and two records that show it; JSON-ready.

    Records are compared by the hashes of `fact_keys`, so words count and their case does not.
    """
    numbers = np.flatnonzero(train.chosen & (train.corpus.cache.rows["kind"] != TEXT))
    rows = train.corpus.cache.rows[numbers]
    order = np.lexsort((numbers, rows["answer"], rows["question"]))
    asked, given = rows["question"][order], rows["answer"][order]
    differ = np.flatnonzero((asked[1:] == asked[:-1]) & (given[1:] != given[:-1]))
    shown = [] if not len(differ) else sorted(numbers[order[differ[0] : differ[0] + 2]].tolist())
    return {
        "contradicted": len(np.unique(asked[differ])),
        "contradicted_first": [_place(train, number) for number in shown],
    }


def contradictions_sentence(questions: int, places: list[str]) -> str:
    """For a person: how many, and where to look."""
    return (
        f"{counted(questions, 'question has', 'questions have')} different answers in different "
        "records, such as "
        f"{' and '.join(places)}: where only one is right, keep that one"
    )


def _place(train: Selection, number: int) -> str:
    """As `inspect` names a record: by its place among those of its file that can be read."""
    corpus = train.corpus
    source = corpus.cache.rows["source"][number]
    same_file = np.flatnonzero(corpus.cache.usable & (corpus.cache.rows["source"] == source))
    at = int(np.searchsorted(same_file, number)) + 1
    return f"record {at:,} of {printable(corpus.files[source].name)}"
