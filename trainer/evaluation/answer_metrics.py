"""How alike a given answer and its reference are."""

import re
from collections import Counter


def same_answer(given: str, reference: str) -> bool:
    """Exact match, whitespace aside."""
    return " ".join(given.split()) == " ".join(reference.split())


def token_f1(given: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, as SQuAD counts them.

    Without case and punctuation (Rajpurkar et al. 2016); articles stay, for not every text is
    English.
    """
    one, other = (Counter(re.findall(r"\w+", text.lower())) for text in (given, reference))
    if not one or not other:
        return float(one == other)
    shared = (one & other).total()
    return 2 * shared / (one.total() + other.total())
