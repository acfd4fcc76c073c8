"""What documents speak of, by their words, and how a bot answers whatever else it is asked.

An adapter of a small base refuses by the wording of a question as much as by what it asks about.
Words tell that apart without a model: a name that no document has, or words that hardly any has.
"""

import difflib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.corpus.examples import Message
from trainer.runtime.json_records import read_object, well_formed

DOMAIN = "known_words.json"
_NAMED = re.compile(r"\w[\w-]*")
_NUMBERED = re.compile(r"\b([A-Z][^\W\d_]*)[ -](\d+)\b")  # a name that others write in one word
_ENDS_A_SENTENCE = frozenset(".!?:;")
_TITLES = frozenset(("mr", "mrs", "ms", "dr", "prof", "st", "no", "vs"))  # whose dot ends none
_GREETING = re.compile(
    r"(?<!\s)\s*(?:hi|hello|hey|dear|good (?:morning|day|evening))\b[^,.!?:]*", re.I
)
LONGEST_ALONE = 60  # words; a longer question brings its own text along
ALIKE = 0.85  # of difflib's ratio, from which on a word is one that was typed wrongly
_End = tuple[int, str]  # 0 for a beginning, 1 for an end; its letters
_END, _MOST_COMPARED = 3, 1000  # letters that words share to be compared, and how many are
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
_SMALL_TALK = frozenset(
    "hello hi hey thanks thank welcome bye goodbye sorry ok okay good nice great morning evening "  # noqa: SIM905
    "afternoon night help explain summarize say answer question simply".split()
)
_ABOUT_NOTHING = FUNCTION_WORDS | _ALSO_IN_QUESTIONS | _SMALL_TALK
_OF_NO_DOCUMENT = frozenset(  # capitals that name nothing that a document is about
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "  # noqa: SIM905
    "june july august september october november december english german french spanish italian "
    "portuguese dutch polish russian turkish arabic chinese japanese korean hindi christmas "
    "easter".split()
)


@dataclass
class Vocabulary:
    """The words that occur in documents, without what inflects them."""

    words: set[str] = field(default_factory=set)
    _by_end: dict[tuple[int, str], list[str]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _indexed: int = field(default=0, repr=False, compare=False)

    def add(self, text: str) -> None:
        text = plain(text)
        self.words.update(map(stem, words_in(text)))
        self.words.update("".join(found).casefold() for found in _NUMBERED.findall(text))

    def knows(self, name: str) -> bool:
        """Whether any word of a name occurs; those of one or two letters do in any text."""
        found = words_in(name)
        return any(stem(word) in self.words for word in found if len(word) > 2 or len(found) == 1)

    def speaks_of(self, question: str) -> bool:
        """Whether it names something that occurs, word for word; of a question that names nothing,
        whether a third of the words occur that say what it is about, or all but one. A question of
        more than LONGEST_ALONE words is not judged."""
        question = _GREETING.sub("", plain(question), count=1)
        if len(words_in(question)) > LONGEST_ALONE:
            return True
        if question.isupper() or question.istitle():
            question = question.lower()  # whose capitals make no names
        if names := [name for name in names_in(question) if _is_of_something(name)]:
            return any(all(map(self._has, words_in(name))) for name in names)
        about = [word for word in words_in(question) if word not in _ABOUT_NOTHING]
        unknown = sum(not self._has(word) for word in about)
        return unknown < 2 or 3 * (len(about) - unknown) >= len(about)

    def _has(self, word: str) -> bool:
        """As it stands or, of five letters or more, typed wrongly."""
        word = stem(word)
        if word in self.words or len(word) < 5 or not word.isalpha():
            return word in self.words
        near = [known for known in self._of_an_end(word) if abs(len(known) - len(word)) < 3]
        return bool(difflib.get_close_matches(word, near[:_MOST_COMPARED], 1, ALIKE))

    def _of_an_end(self, word: str) -> list[str]:
        """Those that begin or end as `word` does: who mistypes it leaves one of its ends. All of a
        large vocabulary would take seconds for each word of a question."""
        if self._indexed != len(self.words):
            by_end: dict[_End, list[str]] = {}
            for known in sorted(self.words):
                for end in _ends(known):
                    by_end.setdefault(end, []).append(known)
            self._by_end, self._indexed = by_end, len(self.words)  # threads may ask together
        return [known for end in _ends(word) for known in self._by_end.get(end, ())]


def _ends(word: str) -> tuple[_End, _End]:
    return (0, word[:_END]), (1, word[-_END:])


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
            refusal.encode()  # no half of a surrogate pair, which no tokenizer takes
            return cls(Vocabulary(set(words)), refusal)


def plain(text: str) -> str:
    """Without accents, however they are written."""
    if text.isascii():
        return text
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def words_in(text: str) -> list[str]:
    """In small letters, without accents."""
    return [word.casefold() for word in re.findall(r"\w+", plain(text))]


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
    last = None  # word
    for word in _NAMED.finditer(question):
        gap = question[last.end() if last else 0 : word.start()]
        ends = not _ENDS_A_SENTENCE.isdisjoint(gap)
        begins_sentence = not last or (ends and last.group().casefold() not in _TITLES)
        last = word
        if begins_sentence or not _is_name(word.group()):
            continue
        goes_on = found and question[found[-1][1] : word.start()] == " "
        begins = found.pop()[0] if goes_on else word.start()
        found.append((begins, word.end()))
    return [question[begins:end] for begins, end in found]


def _is_of_something(name: str) -> bool:
    """And neither "I", a number, a version, a day, a language nor letters like EUR or FAQ."""
    return any(map(_names_something, re.findall(r"\w+", name)))


def _names_something(word: str) -> bool:
    of_none = word.casefold().removesuffix("s") in _OF_NO_DOCUMENT
    letters = word.isupper() and word.isalpha() and len(word) <= 4
    version = word[1:].isdigit() and word[0] in "vV"
    return any(map(str.isalpha, word)) and not (of_none or letters or version)


def _is_name(word: str) -> bool:
    return word[0].isupper() or any(map(str.isdigit, word))
