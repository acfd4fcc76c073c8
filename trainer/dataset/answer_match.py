"""Whether answers stand beside their own questions: a column that was sorted alone mixes them up.

Where answers are sentences, one names what its question asks about. If most of them would fit the
question of another record, and fit their own no better than chance, they stand in wrong rows.
"""

import math
import re
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from trainer.dataset.eval_questions import Question

LEAST_RECORDS = 20
LEAST_WORDS = 4  # of an answer, at the median: labels and codes name nothing of their question
FITS = 0.4  # of an answer's words that also stand in one question
LOOKED_AT = 4000  # characters of each: the table below has a column for each word of all
BEYOND_CHANCE = 3.0  # standard deviations of a random order
_WORDS = re.compile(r"\w+")


def misplaced_answer(questions: Sequence[Question]) -> Question | None:
    """One with an answer that fits another question far better, where that is so of most; else
    None."""
    if len(questions) < LEAST_RECORDS:
        return None
    asked = [_words(q.as_text) for q in questions]
    given = [_words(q.answer) for q in questions]
    if median(map(len, given)) < LEAST_WORDS:
        return None
    asked_QW, given_AW = _incidence(asked, given)
    shared_AQ = given_AW @ asked_QW.T
    if np.median(shared_AQ.max(1) / np.maximum(given_AW.sum(1), 1)) < FITS:
        return None
    rarity_W = -np.log(np.maximum(asked_QW.mean(0), 1 / len(asked)))
    fit_AQ = (given_AW * rarity_W) @ asked_QW.T
    if _is_beyond_chance(fit_AQ):
        return None
    return questions[int((fit_AQ.max(1) - fit_AQ.diagonal()).argmax())]


def _words(text: str) -> set[str]:
    return set(_WORDS.findall(text[:LOOKED_AT].casefold()))


def wordings(questions: Sequence[Question]) -> float:
    """How many questions have the same answer, on average."""
    return round(len(questions) / max(len({q.answer for q in questions}), 1), 1)


def _incidence(asked: Sequence[set[str]], given: Sequence[set[str]]) -> tuple[Any, Any]:
    """Which words stand in which question [Q, W] and in which answer [A, W], as 0 and 1."""
    number = {word: at for at, word in enumerate(sorted(set().union(*asked, *given)))}
    sides = []
    for texts in (asked, given):
        stands = np.zeros((len(texts), len(number)), np.float32)
        for row, words in zip(stands, texts, strict=True):
            row[[number[word] for word in words]] = 1
        sides.append(stands)
    return sides[0], sides[1]


def _is_beyond_chance(fit_AQ: Any) -> bool:
    """Whether answers fit their own questions better than in a random order, whose mean and
    variance are exact."""
    fit = fit_AQ.astype(float)
    centred = fit - fit.mean(0, keepdims=True) - fit.mean(1, keepdims=True) + fit.mean()
    deviation = math.sqrt((centred**2).sum() / (len(fit) - 1))
    return bool(fit.trace() - fit.mean() * len(fit) > BEYOND_CHANCE * deviation)
