"""What forbids a question: pure rules over words, each a reason in words for whoever reads it."""

import re
from collections.abc import Iterable, Sequence

from trainer.dataset.domain import FUNCTION_WORDS, stem
from trainer.evaluation.answer_metrics import normalised, token_f1
from trainer.preparation import english

LEAST_WORDS, MOST_CHARS = 3, 200
NEAR_COPY = 0.95  # F1 of the words from which two questions are one
SAME_ANSWER = 0.8  # F1 from which two answers are one

NO_QUESTION = "no question"
UNNAMED = "does not say what it is about"
HOLDS_ANSWER = "holds the answer"
NOTHING_NEW = "holds all that the sentence says"
OTHER_KIND = "asks for what the sentence does not give"
NEAR_COPY_OF = "says the same as another"

_WORD = re.compile(r"[^\W_]+(?:[-./'][^\W_]+)*")
_NUMBER = re.compile(r"\d")
_COUNTED = re.compile(r"\bhow many (\w+)", re.I)
_CLOSED = re.compile(  # a question that holds what it asks about
    r"(?:is|are|was|were|does|do|did|has|have|had|will|would|should|must|"
    r"(?:can|could|may)\b(?! you))\b",
    re.I,
)


def words_of(text: str) -> list[str]:
    return _WORD.findall(text)


def is_name(word: str) -> bool:
    return any(c.isupper() for c in word)


def names_and_numbers(text: str) -> set[str]:
    """Words with digits or with capitals, but for a first one whose capital says nothing."""
    found = set()
    for number, word in enumerate(words_of(text)):
        if _NUMBER.search(word) or (is_name(word) and (number or is_name(word[1:]))):
            found.add(word.casefold())
    return found


def news(statement: str, others: Iterable[str]) -> set[str]:
    """Numbers and names of a statement that nothing else beside it has: what it tells."""
    known = {w.casefold() for other in others for w in words_of(other)}
    return names_and_numbers(statement) - known


def content_words(question: str, subject: str) -> list[str]:
    """Words that say what is asked; not those that name the subject or make a question."""
    named = {stem(word) for word in words_of(subject)}
    return [
        word
        for word in words_of(question)
        if word.casefold() not in FUNCTION_WORDS and stem(word) not in named
    ]


def is_named(question: str, subject: str) -> bool:
    """Whether the question has all words of the subject's name, names as they are written."""
    asked = {_as_named(word) for word in words_of(question)}
    named = [_as_named(word) for word in words_of(subject) if word.casefold() not in FUNCTION_WORDS]
    return bool(named) and all(word in asked for word in named)


def _as_named(word: str) -> str:
    return word.removesuffix("'s") if is_name(word) else stem(word)


def why_unusable(
    question: str, statement: str, subject: str, others: Sequence[str], *, by_form: bool = False
) -> str | None:
    """Why a question does not go with its sentence; None where nothing speaks against it.

    `others` is what stands beside the sentence: the passage's other sentences and headings. What
    the sentence's form gives as question and answer, `by_form`, is not looked for again.
    """
    words = words_of(question)
    if (
        len(words) < LEAST_WORDS
        or len(question) > MOST_CHARS
        or not question.endswith(("?", "\uff1f"))
    ):
        return NO_QUESTION
    if subject and not is_named(question, subject):
        return UNNAMED
    if not set(map(stem, content_words(statement, subject))) - set(map(stem, words)):
        return NOTHING_NEW
    if by_form:
        return None
    asked = {word.casefold() for word in words}
    told = news(statement, [*others, subject])
    if told & asked or _CLOSED.match(question):
        return HOLDS_ANSWER
    if not _gives_what_is_asked(question, statement, subject):
        return OTHER_KIND
    return None


def names_somebody(statement: str, subject: str) -> bool:
    """Whether it holds a name that is not the subject's."""
    words = words_of(statement.replace(subject.removeprefix("the "), ""))
    return any(is_name(word) for word in words[1:]) or any(is_name(w[1:]) for w in words[:1])


def _gives_what_is_asked(question: str, statement: str, subject: str) -> bool:
    rest = statement.replace(subject.removeprefix("the "), "")
    counted = _COUNTED.search(question)
    if counted and stem(counted[1]) not in {stem(word) for word in words_of(rest)}:
        return False
    return english.gives_what_is_asked(question, rest, names_somebody(statement, subject))


def is_topic(words: str, subject: str) -> bool:
    """Whether `words` may name what is said of the subject: one to three that are no names."""
    found = words_of(words)
    is_short = 1 <= len(found) <= 3 and all(word.isalpha() for word in found)
    return is_short and not names_and_numbers(f"a {words}") and bool(content_words(words, subject))


def is_near_copy(question: str, others: Iterable[str]) -> bool:
    mine = normalised(question)
    return any(mine == normalised(o) or token_f1(question, o) >= NEAR_COPY for o in others)


def same_answer(one: str, other: str, question: str) -> bool:
    """Whether two answers tell the same beyond what their question says: F1 of those words from
    0.8, or all words of the shorter one with every number and name of the longer."""
    asked = {stem(word) for word in words_of(question)}
    first, second = (
        [
            stem(w)
            for w in words_of(text)
            if stem(w) not in asked and w.casefold() not in FUNCTION_WORDS
        ]
        for text in (one, other)
    )
    if not first or not second:
        return first == second and bool(one)
    if token_f1(" ".join(first), " ".join(second)) >= SAME_ANSWER:
        return True
    told = [{w for w in names_and_numbers(text) if stem(w) not in asked} for text in (one, other)]
    short, long = sorted((set(first), set(second)), key=len)
    return short <= long and told[0] == told[1]
