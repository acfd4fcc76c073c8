"""How alike a given answer and its reference are."""

import math
import re
from collections import Counter

_WORDS = re.compile(r"\w+")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_ENDS_IN_NUMBER = re.compile(rf"(?<![\w.,-]){_NUMBER.pattern}\W*$")
ARTICLES = {
    "a", "an", "the", "der", "die", "das", "den", "dem", "des", "ein", "eine", "einen", "einem",
    "einer", "le", "la", "les", "un", "une", "el", "los", "las", "una", "il", "lo", "gli", "uno",
    "de", "het", "een",
}  # fmt: skip


def same_answer(given: str, reference: str) -> bool:
    """Exact match, whitespace aside."""
    return " ".join(given.split()) == " ".join(reference.split())


def normalised(text: str) -> list[str]:
    """Its words without case, punctuation and articles, as SQuAD normalises answers.

    An answer of articles alone ("una", "ein") keeps them: there they are numbers.
    """
    words = _WORDS.findall(text.casefold())
    return [word for word in words if word not in ARTICLES] or words


def same_words(given: str, reference: str) -> bool:
    """Exact match after normalising."""
    return normalised(given) == normalised(reference)


def contains(given: str, reference: str) -> bool:
    """Whether the words of the reference stand in the answer, one after the other."""
    words, wanted = normalised(given), normalised(reference)
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) + 1))


def told(given: str, reference: str, question: str) -> float | None:
    """The share of what the reference tells beyond the question that the answer has too: of its
    numbers or, where it tells none, of its words. Whoever words the rest another way loses nothing.
    None where the reference tells nothing more.
    """
    new = set(normalised(reference)) - set(normalised(question))
    wanted = {word for word in new if any(map(str.isdigit, word))} or new
    return len(wanted & set(normalised(given))) / len(wanted) if wanted else None


def last_number(text: str) -> float | None:
    """The last number in `text`, as the answers to arithmetic problems are compared."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def ends_in_number(text: str) -> bool:
    """Whether a number is its last word, as in an answer to arithmetic: 42, $1,000, 12 %; not that
    of a name (T93), nor one before a unit, which is told like other words."""
    return _ENDS_IN_NUMBER.search(text) is not None


def interval(share: float, count: int) -> tuple[float, float]:
    """Between what the share of right answers lies, at 95 %, if it is `share` of `count` that were
    asked (Wilson 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return max(0.0, middle - half), min(1.0, middle + half)


def token_f1(given: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, as SQuAD counts them.

    Without case and punctuation (Rajpurkar et al. 2016); articles stay, for not every text is
    English.
    """
    one, other = (Counter(_WORDS.findall(text.lower())) for text in (given, reference))
    if not one or not other:
        return float(one == other)
    shared = (one & other).total()
    return 2 * shared / (one.total() + other.total())
