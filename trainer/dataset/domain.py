"""What documents speak of, by their words, and how a bot answers whatever else it is asked.

An adapter of a small base refuses by the wording of a question as much as by what it asks about.
Words tell that apart without a model: a name that no document has, or words most of which none has.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.corpus.examples import Message
from trainer.runtime.json_records import read_object, well_formed

DOMAIN = "known_words.json"
_NAMED = re.compile(r"\w[\w-]*")
_ENDS_A_SENTENCE = frozenset(".!?:;")
LONGEST_REFUSAL = 4000  # characters
# Words that a question in English may have whatever it is about.
FUNCTION_WORDS = frozenset(
    "what which who whom whose where when why how is are was were be been do does did can could "  # noqa: SIM905
    "will would should may might must has have had the a an of in on at to for from by with about "
    "as and or not if it its this that there you your i my me we our us they their know tell much "
    "many long get use used need want like give name called happens happen mean kind type one "
    "please".split()
)
# So may these, but in a sentence of a document they may be what it is about.
_ALSO_IN_QUESTIONS = frozenset(
    "before after until while than then so no yes more most some any each all both two first last "  # noqa: SIM905
    "also just only very too here into over under up down out off again these those them he she "
    "him her his am being going got let make made done take".split()
)
_CALENDAR = frozenset(  # capitals that name nothing that a document is about
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "  # noqa: SIM905
    "june july august september october november december".split()
)


@dataclass
class Vocabulary:
    """The words that occur in documents, without what inflects them."""

    words: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        self.words.update(map(stem, words_in(text)))

    def knows(self, name: str) -> bool:
        """Whether any word of a name occurs; those of one or two letters do in any text."""
        found = words_in(name)
        return any(stem(word) in self.words for word in found if len(word) > 2 or len(found) == 1)

    def speaks_of(self, question: str) -> bool:
        """Whether it names something that occurs, word for word; of a question that names nothing,
        whether half of the words occur that say what it is about."""
        if question.isupper() or question.istitle():
            question = question.lower()  # whose capitals make no names
        if names := [name for name in names_in(question) if _is_of_something(name)]:
            return any(self._has_all(name) for name in names)
        about = [w for w in words_in(question) if w not in FUNCTION_WORDS | _ALSO_IN_QUESTIONS]
        return 2 * sum(stem(word) in self.words for word in about) >= len(about)

    def _has_all(self, name: str) -> bool:
        return all(stem(word) in self.words for word in words_in(name))


@dataclass(frozen=True)
class Domain:
    """What a bot answers from, and its answer to whatever else it is asked."""

    told: Vocabulary
    refusal: str

    def refuses(self, asked: str | Sequence[Message]) -> bool:
        """Whether the documents speak of nothing that a user asks in it."""
        if isinstance(asked, str):
            return not self.told.speaks_of(asked)
        users = [turn.content for turn in asked if turn.role == "user"]
        return not any(map(self.told.speaks_of, users))

    def as_json(self) -> str:
        return json.dumps({"refusal": self.refusal, "words": sorted(self.told.words)}) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Domain | None":
        """The one that is kept in `folder`; None where none is. Raises ValueError for a file that
        is damaged."""
        if not (folder / DOMAIN).is_file():
            return None
        record = read_object(folder / DOMAIN)
        with well_formed("a domain"):
            words, refusal = record["words"], record["refusal"]
            sound = isinstance(refusal, str) and len(refusal) <= LONGEST_REFUSAL
            if not (sound and all(isinstance(word, str) for word in words)):
                raise ValueError(f"{DOMAIN} holds something else than words")
            return cls(Vocabulary(set(words)), refusal)


def words_in(text: str) -> list[str]:
    """In small letters."""
    return [word.casefold() for word in re.findall(r"\w+", text)]


def stem(word: str) -> str:
    """A word without what inflects it, roughly: `weighs` and `weigh` are one."""
    word = word.casefold()
    for end in ("'s", "ies", "ys", "ing", "es", "ed", "s", "y", "e"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            return word[: -len(end)]
    return word


def names_in(question: str) -> list[str]:
    """Words with a capital or a digit, those that follow each other as one; not the first word of
    a sentence, which has a capital in any case."""
    found: list[tuple[int, int]] = []
    before = -1  # where the last word ended
    for word in _NAMED.finditer(question):
        gap = question[max(before, 0) : word.start()]
        begins_sentence = before < 0 or not _ENDS_A_SENTENCE.isdisjoint(gap)
        before = word.end()
        if begins_sentence or not _is_name(word.group()):
            continue
        goes_on = found and question[found[-1][1] : word.start()] == " "
        begins = found.pop()[0] if goes_on else word.start()
        found.append((begins, word.end()))
    return [question[begins:end] for begins, end in found]


def _is_of_something(name: str) -> bool:
    """And neither "I" nor a number nor a day."""
    a_day = name.casefold().removesuffix("s") in _CALENDAR
    return len(name) > 1 and any(map(str.isalpha, name)) and not a_day


def _is_name(word: str) -> bool:
    return word[0].isupper() or any(map(str.isdigit, word))
