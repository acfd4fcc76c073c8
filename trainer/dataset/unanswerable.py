"""Questions that the documents do not answer, made without a model: none is answered by chance.

Of three kinds in turn: a question that they answer, asked of a name that they do not know; the
same asked of something of another kind; a question about something else. The last two are English,
and are left out where the documents' questions are not.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from trainer.dataset.domain import Vocabulary, names_in, words_in
from trainer.settings import Settings

SOURCE = Path(__file__).with_name("other_questions.json")
INVENTED, OTHER_KIND, OTHER_TOPIC = "an invented name", "something of another kind", "another topic"
_VOWELS, _CONSONANTS = "aeiou", "bcdfghklmnprstvwz"
_TRIES = 8  # names, until one is new
_ENGLISH = {
    "what",
    "which",
    "who",
    "whom",
    "whose",
    "when",
    "where",
    "why",
    "how",
    "is",
    "does",
    "do",
    "are",
    "can",
}


@dataclass(frozen=True)
class Unanswerable:
    question: str
    how: str
    """INVENTED, OTHER_KIND or OTHER_TOPIC"""


def unanswerable(
    answered: Sequence[tuple[str, str]], told: Vocabulary, count: int, seed: int
) -> list[Unanswerable]:
    """`count` different questions, fewer where no more can be made, the same for the same `seed`.

    `answered` are questions that the documents answer, each with the headings of its passage.
    """
    random = Random(seed)
    named = [
        (question, name) for question, section in answered if (name := subject(question, section))
    ]
    random.shuffle(named)
    ways = [_of_invented_names(named, told, random)]
    if are_english([question for question, _ in answered]):
        other = json.loads(SOURCE.read_text(encoding="utf-8"))
        ways.append(_of_another_kind(named, told, random, other["subjects"]))
        ways.append(_of_another_topic(told, random, other["questions"]))
    known = {question.casefold() for question, _ in answered}
    found: dict[str, Unanswerable] = {}
    for made in _in_turn(ways):
        if len(found) >= count:
            break
        if made.question.casefold() not in known:
            found.setdefault(made.question.casefold(), made)
    return list(found.values())


def refusals(
    records: Sequence[Mapping[str, str]], told: Vocabulary, settings: Settings
) -> list[dict[str, str]]:
    """Records beside `records` (of `question` and `section`), refused in the words of the settings:
    as many as make up their share of all."""
    share = settings.refusal_share if settings.refuses else 0.0
    count = round(len(records) * share / (1 - share))
    answered = [(record["question"], record.get("section", "")) for record in records]
    return [
        {"question": made.question, "answer": settings.refusal, "made_by": made.how}
        for made in unanswerable(answered, told, count, settings.seed)
    ]


def subject(question: str, section: str = "") -> str:
    """What a question is about: the innermost heading of its passage that it names, else its
    longest name, of words with a capital or a digit; empty where it names nothing."""
    for heading in reversed(section.split(" > ")):
        at = question.casefold().find(heading.casefold()) if heading.strip() else -1
        if at >= 0:
            return question[at : at + len(heading)]
    return max(names_in(question), key=len, default="")


def _of_invented_names(
    named: Sequence[tuple[str, str]], told: Vocabulary, random: Random
) -> Iterator[Unanswerable]:
    for question, name in named:
        for _ in range(_TRIES):
            other = _another_name(name, random)
            if not told.knows(other):
                yield Unanswerable(question.replace(name, other), INVENTED)
                break


def _another_name(name: str, random: Random) -> str:
    """Each letter and digit another one of its kind: "Nortam A12" is "Kelvir U57"."""

    def other(character: str) -> str:
        for kind in (_VOWELS, _CONSONANTS, "0123456789"):
            if character.lower() in kind:
                found = random.choice(kind.replace(character.lower(), ""))
                return found.upper() if character.isupper() else found
        return character

    return "".join(map(other, name))


def _of_another_kind(
    named: Sequence[tuple[str, str]], told: Vocabulary, random: Random, subjects: Sequence[str]
) -> Iterator[Unanswerable]:
    unknown = [name for name in subjects if not told.knows(name)]
    for question, name in reversed(named) if unknown else ():
        yield Unanswerable(question.replace(name, random.choice(unknown)), OTHER_KIND)


def _of_another_topic(
    told: Vocabulary, random: Random, questions: Sequence[str]
) -> Iterator[Unanswerable]:
    """Those whose longest word the documents do not have."""
    unknown = [q for q in questions if not told.knows(max(words_in(q), key=len))]
    for question in random.sample(unknown, len(unknown)):
        yield Unanswerable(question, OTHER_TOPIC)


def _in_turn(ways: Iterable[Iterator[Unanswerable]]) -> Iterator[Unanswerable]:
    left = list(ways)
    while left:
        for way in list(left):
            made = next(way, None)
            if made is None:
                left.remove(way)
            else:
                yield made


def are_english(questions: Sequence[str]) -> bool:
    """Whether most begin or go on with a word that English questions have."""
    english = sum(bool(_ENGLISH & set(words_in(question))) for question in questions)
    return 2 * english > len(questions)
