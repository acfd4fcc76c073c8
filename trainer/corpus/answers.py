"""The answer of a record: its column may hold one text, parts of one, or several that are right.

A column `answers`, and an object as SQuAD and TriviaQA have them, hold alternatives. A list in
another column holds parts of one answer, as lines or steps, but where each entry names the same as
the first: all words of "Paris" stand in "City of Paris", and UK are the initials of the other.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainer.corpus.conversations import joined_parts
from trainer.corpus.examples import Unusable, checked_text

FURTHER_ANSWERS = "not used: answers to a question behind its first one"
JOINED = (
    "answers that are lists are joined, each entry on a line; where the entries are alternatives, "
    "name their column answers"
)
_LIST_OF_ANSWERS = "answers"
_MOST_WORDS = 8  # of a name
_WORD = re.compile(r"\w+")
_ENDS_A_SENTENCE = (".", "!", "?", ":", ";", ",")
_SMALL = {"the", "a", "an", "of", "der", "die", "das", "le", "la", "el"}


def has_no_answer(answer: object, what: str) -> bool:
    """Whether it is SQuAD's way to say that the context has none."""
    if isinstance(answer, dict):
        return answer.get("text") == []
    return answer == [] and _folded(what) == _LIST_OF_ANSWERS


def answer_of(answer: Any, what: str, counts: Counter[str]) -> str:
    """One text; what of it is not used, or joined, is added to `counts`. Raises Unusable."""
    has_several = _folded(what) == _LIST_OF_ANSWERS
    if _is_text_object(answer):  # as SQuAD has them: {"text": [...], …}
        answer, has_several = answer["text"], True
    elif isinstance(answer, dict) and {"value", "aliases"} <= answer.keys():  # as TriviaQA does
        aliases = answer["aliases"] if isinstance(answer["aliases"], list) else []
        answer, has_several = [answer["value"], *aliases], True
    if not isinstance(answer, list):
        return checked_text(answer, what)
    if not answer:
        raise Unusable(f"{what} holds no answer")
    if has_several or _are_names_of_one(answer):
        return _first_answer(answer, what, counts)
    if any(isinstance(part, dict) for part in answer):
        return checked_text(joined_parts(answer, what), what)
    lines = [checked_text(line, what, may_be_empty=True) for line in answer]
    if len(lines) > 1:
        counts[JOINED] += 1
    return checked_text("\n".join(lines), what)


def _folded(quoted: str) -> str:
    return quoted.strip('"').strip().casefold()


def _first_answer(answers: Sequence[Any], what: str, counts: Counter[str]) -> str:
    """Of several, which may be alike."""
    texts = [answer["text"] if _is_text_object(answer) else answer for answer in answers]
    first = checked_text(texts[0], what)
    further = len({str(text) for text in texts} - {str(texts[0])})
    if further:
        counts[FURTHER_ANSWERS] += further
    return first


def _is_text_object(value: object) -> bool:
    return isinstance(value, dict) and "text" in value


def _are_names_of_one(answers: Sequence[object]) -> bool:
    if len(answers) < 2 or not all(isinstance(answer, str) for answer in answers):
        return False
    texts = [str(answer).strip() for answer in answers]
    first, *others = (_words(text) for text in texts)
    if any(text.endswith(_ENDS_A_SENTENCE) and "." not in text[:-1] for text in texts):
        return False
    if max(map(len, (first, *others))) > _MOST_WORDS:
        return False
    return all(_is_same(first, other) for other in others)


def _is_same(one: Sequence[str], other: Sequence[str]) -> bool:
    if not one or not other:
        return False
    if set(one) <= set(other) or set(other) <= set(one):
        return True
    short, long = sorted((one, other), key=len)
    return len(long) > 1 and "".join(short) == "".join(word[0] for word in long)


def _words(text: str) -> Sequence[str]:
    found = _WORD.findall(text.casefold())
    return [word for word in found if word not in _SMALL] or found
