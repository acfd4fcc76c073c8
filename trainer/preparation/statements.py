"""What a passage states: its sentences, and what they are about."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.dataset.passages import SECTIONS, Passage

LEAST_WORDS, MOST_CHARS = 4, 320  # of a statement
_MOST_SUBJECT_WORDS = 6

_CODE = re.compile(r"(?ms)^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1[ \t]*$|\Z)")
_ROW = re.compile(r"(?m)^[ \t]*\|.*\w.*$")
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t])")
_BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+")
_ABBREVIATIONS = r"(?<!\b[A-Z])" + "".join(
    rf"(?<!\b{re.escape(a)})" for a in ("e.g", "i.e", "etc", "vs", "Dr", "Mr", "Mrs", "No", "z.B")
)
_SENTENCE_END = re.compile(
    rf"""{_ABBREVIATIONS}[.!?]["')\]\u201d*]*(?=\s+["'(`*\[\u201c]?[A-ZÀ-Þ0-9])"""
)
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
# Marks of a quotation, a note (`!!! note "Title"`) and of emphasis, which are no words.
_NOTE = re.compile(r"^(?:[ \t]*>)*[ \t]*(?:!!!|\?\?\?\+?)[ \t]+\w+(?:[ \t]+\"[^\"\n]*\")?[ \t]*$")
_QUOTED = re.compile(r"^[ \t]*(?:>[ \t]?)+")
_EMPHASIS = re.compile(r"(?<![`\w*])(\*\*|__|[*_])(?![\s*_])([^*_`\n]+?)(?<!\s)\1(?![`\w])")
# Sentences that say nothing without the one before.
_LEANS = re.compile(
    r"(?:this|that|these|those|however|but|so|otherwise|instead|then|also|thus|therefore|here|"
    r"for (?:example|instance)|in (?:this|that) case|such|similarly|dies|diese[rs]?|daher|"
    r"deshalb|jedoch|aber|sonst)\b(?! means of)",
    re.IGNORECASE,
)

_IT = re.compile(r"(?:it|they|she|he|its|their|her|his)\b", re.IGNORECASE)
# Sentences that send the reader elsewhere.
_POINTS_ELSEWHERE = re.compile(
    r"(?:please )?(?:see|refer to|check out|read|have a look)\b|(?:for|to) [^,]*, (?:please )?"
    r"(?:see|refer|check|read|have a look)\b|.*\b(?:section|page|chapter)s? (?:below|above|on th)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Statement:
    """A sentence that says something, as it stands in its passage; `subject` is what it is about,
    as a question has to name it ("the HG-200"), empty where no heading is its name."""

    text: str
    subject: str
    about: str = ""
    """what is said above it, where no subject is known by name"""
    begins: int = 0
    """where its own words begin, behind those of the sentence that says what `it` is"""


def statements_of(passage: Passage) -> list[Statement]:
    """In the order of the passage."""
    subject = _subject(passage)
    about = subject or SECTIONS.join(_short_titles(passage)[-2:])
    if passage.answers:
        return [Statement(answer, subject, about) for answer in passage.answers]
    return [
        Statement(text, subject, about, begins)
        for text, begins in _statements(passage.text, it_is_known=bool(subject))
    ]


def left_over(passage: Passage) -> list[str]:
    """Rows of tables, items of lists and sentences of it that are in no statement."""
    if passage.answers:
        return []
    stated = [statement.text for statement in statements_of(passage)]
    text = _CODE.sub("\n\n", passage.text)
    pieces = [p for p in _pieces(_ROW.sub("", text)) if not any(p in said for said in stated)]
    return [*(" ".join(row.split()) for row in _ROW.findall(text)), *pieces]


def _short_titles(passage: Passage) -> list[str]:
    return [t for t in passage.section.split(SECTIONS) if len(t.split()) <= _MOST_SUBJECT_WORDS]


def _subject(passage: Passage) -> str:
    """The innermost heading that the text uses as a name, with its article, or begins with as
    `it`; empty where there is none."""
    titles = _short_titles(passage)
    for title in reversed(titles):
        if any(c.isupper() for c in title):
            name = re.escape(title)
            within = rf"\b(?:(the|The)|[A-Za-z]\w+) {name}(?!\w)"
            in_front = rf"(?:^|\n|[.!?][\"')]*\s){name} [a-z]"
            if used := re.search(rf"{within}|{in_front}", passage.text):
                return f"the {title}" if used[1] else title
    begins = next(_sentences(passage.text), "")
    return titles[-1] if titles and titles[-1] and _IT.match(begins) else ""


def _statements(text: str, *, it_is_known: bool) -> Iterator[tuple[str, int]]:
    """Each with the sentence before where it leans on that, and behind the one that names what `it`
    is where that is not known; and where its own words begin."""
    last, begins, named = "", 0, ""
    for sentence in _sentences(text):
        if last and _LEANS.match(sentence) and len(last) + len(sentence) < MOST_CHARS:
            last = f"{last} {sentence}"
            continue
        if last:
            yield last, begins
        begins = 0
        if _IT.match(sentence) and not it_is_known:
            begins = len(named) + 1 if named and len(named) + len(sentence) < MOST_CHARS else 0
            last = f"{named} {sentence}" if begins else sentence
        else:
            last = named = "" if _LEANS.match(sentence) else sentence
    if last:
        yield last, begins


def _sentences(text: str) -> Iterator[str]:
    """Those that say something."""
    return filter(_says_something, _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """Sentences and items of lists; no code, no headings, no rows of tables."""
    for paragraph in re.split(r"\n\s*\n", _CODE.sub("\n\n", text)):
        for block in _ITEM.split(paragraph):
            lines = [
                _QUOTED.sub("", line)
                for line in block.split("\n")
                if not re.match(r"\s*(#{1,6} |[|=~+-]{2})", line) and not _NOTE.match(line)
            ]
            words = _BULLET.sub("", " ".join(" ".join(lines).split()))
            words = _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", words))
            start = 0
            for end in [m.end() for m in _SENTENCE_END.finditer(words)] + [len(words)]:
                sentence = words[start:end].strip()
                start = end
                if sentence:
                    yield sentence


def _says_something(sentence: str) -> bool:
    words = sentence.split()
    letters = sum(c.isalpha() or c.isspace() for c in sentence)
    return (
        len(words) >= LEAST_WORDS
        and len(sentence) <= MOST_CHARS
        and sentence.rstrip("\"')]\u201d*`")[-1:] in (".", "!")
        and not sentence.endswith("..")
        and letters >= 0.75 * len(sentence)
        and not _POINTS_ELSEWHERE.match(sentence)
    )
