"""Which part of the data is held out: wordings of facts, whole facts, documents, or nothing.

A fact is an answer, whatever words ask for it. Held out by record, a fact with one wording is lost
to the training, and one with four is judged by words whose siblings are trained: two measures in
one figure. So the data decides which of the two is taken, and what is held out is told by name.
Hashes decide, never positions: adding records moves none of other facts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.examples import Heading, Text
from trainer.tokenization.chunking import text_boundary

SHARE = 0.1
FEW_RECORDS = 200  # a tenth of fewer is fewer than 20 questions, too few to judge by
FEW_DOCUMENTS = 10  # a tenth of fewer is none; beside records, by which the run is judged then
WORDING_SHARE = 0.3  # of the facts with several wordings: a tenth of the records or so
LEAST_SHARE = 0.25  # of the records that such facts have: below it answers are alike by chance
MOST_WORDINGS = 32  # more questions with one answer are a class and its label, and no fact

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class HeldOutBy(StrEnum):
    """What the held-out part measures."""

    WORDINGS = "wordings"
    """facts that are trained, asked in words that are not"""
    FACTS = "facts"
    """records whose questions and answers are not trained"""
    DOCUMENTS = "documents"
    """prose that is not trained"""
    END = "end of the document"
    """the same, of one that is trained"""
    NOTHING = "nothing"
    """no record was held out: those that are asked are trained"""
    EVALUATION_DATA = "evaluation data"
    """what it says"""


HELD_OUT_LOSS, TRAINED_LOSS = "held-out loss", "loss on trained data"


def loss_name(by: str) -> str:
    """What the loss is that a run is judged by, a HeldOutBy: of what is trained, where nothing was
    held out."""
    return TRAINED_LOSS if by == HeldOutBy.NOTHING else HELD_OUT_LOSS


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Which of the examples are held out [examples], and what that measures."""

    mask: Mask
    by: HeldOutBy


def hold_out(rows: Any, is_record: Mask) -> HeldOut:
    """Of examples with these `rows` (`key`, `question` and `answer`, see `EXAMPLE_ROW`) [n].

    A document alone is trained; beside records few documents are, for those judge the run.
    """
    mask = np.zeros(len(rows), bool)
    if not is_record.any():
        mask[:] = held_out(np.array(rows["key"]))
        return HeldOut(mask, HeldOutBy.DOCUMENTS if mask.any() else HeldOutBy.NOTHING)
    records, documents = rows[is_record], rows[~is_record]
    mask[is_record], by = _records(np.array(records["question"]), np.array(records["answer"]))
    if len(documents) >= FEW_DOCUMENTS:
        mask[~is_record] = _below(np.array(documents["key"]), SHARE)
    return HeldOut(mask, by)


def held_out(keys: U64, share: float = SHARE) -> Mask:
    """Which examples are held out, about `share` of them; `keys` are the first 64 bits of each.

    An example is held out when its key, read as a number in [0, 1), is below `share`: adding
    data moves no example to the other side. With two or more different keys neither side is empty:
    the smallest is held out, or the largest trained, where chance left nothing.
    """
    if len(keys) == 0 or keys.min() == keys.max():
        return np.zeros(len(keys), bool)
    held: Mask = _below(keys, share) | (keys == keys.min())
    if held.all():
        held &= keys != keys.max()
    return held


def _below(keys: U64, share: float) -> Mask:
    below: Mask = np.less(keys / 2**64, share)
    return below


def _records(questions: U64, answers: U64) -> tuple[Mask, HeldOutBy]:
    """One wording of some facts, where enough of them have several; else some facts whole."""
    wordings, facts, records = _spare_wordings(questions, answers)
    if records >= LEAST_SHARE * len(questions):
        chosen = _below(facts, WORDING_SHARE) | (facts == facts.min())
        return np.isin(questions, wordings[chosen]), HeldOutBy.WORDINGS
    if len(questions) < FEW_RECORDS:
        return np.zeros(len(questions), bool), HeldOutBy.NOTHING
    return held_out(_facts(questions, answers)), HeldOutBy.FACTS


def _spare_wordings(questions: U64, answers: U64) -> tuple[U64, U64, int]:
    """(question, answer) of each fact with several wordings, the one that can be held out, and how
    many wordings they have together.

    Not one that has other answers too: it would be on both sides, or lost to those.
    """
    pairs = np.unique(np.stack([answers, questions], axis=1), axis=0)
    _, first, wordings = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    several = (wordings > 1) & (wordings <= MOST_WORDINGS)
    asked, answered = np.unique(pairs[:, 1], return_counts=True)
    spare = pairs[first[several]]  # with the smallest question
    clear = answered[np.searchsorted(asked, spare[:, 1])] == 1
    return spare[clear, 1], spare[clear, 0], int(wordings[several][clear].sum())


def _facts(questions: U64, answers: U64) -> U64:
    """A number for each record [n], equal for those with the same answer or the same question.

    Of a class that many questions share each question is by itself.
    """
    _, at, records = np.unique(answers, return_inverse=True, return_counts=True)
    facts = np.where(records[at] > MOST_WORDINGS, questions, answers)
    order = np.argsort(questions, kind="stable")
    asked, given = questions[order], facts[order]
    differ = (asked[1:] == asked[:-1]) & (given[1:] != given[:-1])
    roots = _joined(zip(given[:-1][differ].tolist(), given[1:][differ].tolist(), strict=True))
    if roots:
        known = np.array(sorted(roots), np.uint64)
        root = np.array([roots[number] for number in sorted(roots)], np.uint64)
        found = np.minimum(np.searchsorted(known, facts), len(known) - 1)
        facts = np.where(known[found] == facts, root[found], facts)
    return facts


def _joined(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The smallest number that each is connected with by `pairs`, of those in them: union-find."""
    parents: dict[int, int] = {}

    def root(number: int) -> int:
        parents.setdefault(number, number)
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return {number: root(number) for number in parents}


def divide(document: Text, share: float = SHARE) -> tuple[Text, Text] | None:
    """(most of it, its end), divided at a paragraph, line or word; None where there is none. A
    word alone is not the most of anything: with no end token behind it nothing would be trained."""
    text = document.text.strip()
    boundary = text_boundary(text, 0, round(len(text) * (1 - share)), near_share=1 / 8)
    head, tail = text[:boundary].strip(), text[boundary:].strip()
    if len(head.split(maxsplit=1)) < 2 or not tail or not text[boundary - 1].isspace():
        return None
    begins = document.text.index(text)
    split = begins + len(text) - len(tail)
    return (
        Text(head, _moved([h for h in document.headings if h.at < split], -begins), goes_on=True),
        Text(tail, _moved([h for h in document.headings if h.at >= split], -split)),
    )


def _moved(headings: Iterable[Heading], by: int) -> tuple[Heading, ...]:
    return tuple(replace(heading, at=heading.at + by) for heading in headings)
