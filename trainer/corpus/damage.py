"""What programs did to words before they were read: repaired where it is certain, else told.

UTF-8 that was read as another encoding ("FÃ¼nf") goes back by ftfy, which knows what such text
looks like and leaves "CAFÉ™" alone: a line at a time, and only where all of it goes back.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import Completion, Conversation, Heading, Item, Message, Notice, Text

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

# Distributions whose version may change what a file reads as.
LIBRARIES = ("ftfy",)

# As ftfy tries them. Of the first bytes of UTF-8's letters, and of those behind, what these say.
_READ_AS = (
    *("latin-1", "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "iso8859_2"),
    *("mac_roman", "cp437"),
)
_LOST = "\N{REPLACEMENT CHARACTER}"
_EXCEL_ERRORS = {
    *("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"),
    *("#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#ÜBERLAUF!", "#REF", "#VALEUR!", "#¡REF!", "#¡VALOR!"),
}
_HTML = re.compile(
    r"</(?:p|div|span|li|ul|ol|td|tr|table|a|b|strong|em|i|u|h[1-6])>|<br ?/?>"
    r"|&(?:nbsp|amp|quot|lt|gt|#\d{1,6});"
)
_LONGEST_SHOWN = 30
_SUBTITLE = re.compile(r"^(?:\d\d:)?\d\d:\d\d[.,]\d{3} --> ", re.M)
# What begins as what a program wrote for itself.
_AS_THEY_STAND = {
    "chats with their times and names": re.compile(
        r"\u200e?\[?\d{1,2}[./]\d{1,2}[./]\d{2,4},? \d{1,2}:\d\d(?::\d\d)?"
        r"(?:\s?[ap]\.?m\.?)?(?:\]| -) ",
        re.IGNORECASE,
    ),
    "e-mails with their headers": re.compile(
        r"(?:[a-z][\w-]*:[^\n]*\n|[ \t]+\S[^\n]*\n){0,60}?(?:Message-ID|MIME-Version|Received):",
        re.IGNORECASE,
    ),
}
# What was read in another encoding has two letters beyond ASCII together, or one before a space.
_PAIR = re.compile("[\x80-\U0010ffff](?:[\x80-\U0010ffff]|(?<=[ÃÂ]) )")


# The same as JSON may write them; or what was lost.
_ESCAPED = re.compile(
    r"\\u(?:[0-9a-fA-F]{4}(?:\\u|[^\x00-\x7f])|00[cC][23] |(?<=[^\x00-\x7f]\\u)|[fF]{3}[dD])"
)
_LONGEST_ESCAPED = 12  # two characters


def _is_unmarked(words: str) -> bool:
    """Whether nothing in them is markup, a line break that is spelt out, or an error of Excel."""
    return not ("<" in words or "&" in words or "\\" in words or words[:1] == "#")


def _is_sound(words: str) -> bool:
    """Whether they were in no wrong encoding: asked of all there is, so it is quick."""
    return words.isascii() or (_LOST not in words and _PAIR.search(words) is None)


def _may_be_spoilt(text: str) -> bool:
    """Whether a part of a file holds what a letter of UTF-8 is in another encoding: as
    `_suspicious`, in a quarter of its time. Most files hold nothing of it."""
    if "\\u" in text and _ESCAPED.search(text):
        return True
    if text.isascii():
        return False
    import numpy as np

    chars = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    at = np.flatnonzero(chars > 0x7F)
    first, second = chars[at], np.append(chars, 0)[at + 1]
    leads, follow = _tables()
    spaced = (second == ord(" ")) & ((first == ord("Ã")) | (first == ord("Â")))
    return bool(((leads[first] & follow[second]) | spaced | (first == ord(_LOST))).any())


@cache
def _tables() -> tuple[Any, Any]:
    """Which characters below U+10000 may be the first letter of what UTF-8's letters become in
    another encoding, and which one behind it, [65536] each."""
    import numpy as np

    tables = np.zeros((2, 1 << 16), bool)
    for table, chars in zip(tables, _letters(), strict=True):
        table[[ord(char) for char in chars]] = True
    return tables[0], tables[1]


class Damage:
    """What is wrong with the words of one file."""

    def __init__(self) -> None:
        self._is_all_sound = False  # known of the text of a file whose parts were looked at
        self._repaired = self._doubtful = 0
        self._from_to, self._left = ("", ""), ""
        self._counts: dict[str, tuple[int, str]] = {}

    def looked_at(self, chunks: Iterator[str]) -> Iterator[str]:
        """The text of a file, before anything of it is an item: where all of it is sound, none of
        those has to be looked at."""
        self._is_all_sound, before = True, ""
        for chunk in chunks:
            if self._is_all_sound and _may_be_spoilt(before + chunk):
                self._is_all_sound = False
            before = chunk[-_LONGEST_ESCAPED:]
            yield chunk

    def item(self, item: Item) -> Item:
        """The same with its words repaired; what is only told is counted."""
        if isinstance(item, Conversation):
            return self._conversation(item)
        if isinstance(item, Text):
            return self._text(item)
        if isinstance(item, Completion):
            self._look_at(item.completion, "")
            words = self.repaired(item.prompt), self.repaired(item.completion)
            return Completion(*words) if words != (item.prompt, item.completion) else item
        return item

    def _conversation(self, item: Conversation) -> Conversation:
        for turn in item.messages:
            if turn.thought or not _is_unmarked(turn.content):
                break
            if not self._is_all_sound and not _is_sound(turn.content):
                break
        else:
            return item
        turns = tuple(self._turn(turn, item.where) for turn in item.messages)
        return replace(item, messages=turns) if turns != item.messages else item

    def notices(self) -> Iterator[Notice]:
        if self._repaired:
            before, after = self._from_to
            yield Notice(
                "UTF-8 that had been read as another encoding is repaired, as "
                f'"{before}" to "{after}": lines: {self._repaired:,}'
            )
        if self._doubtful:
            yield Notice(
                "lines that look like UTF-8 read as another encoding are trained as they stand, "
                f'as "{self._left}": {self._doubtful:,}'
            )
        for what, (count, first) in self._counts.items():
            yield Notice(f"{what}: {count:,}{f', first {first}' if first else ''}")

    def _text(self, document: Text) -> Text:
        if _LOST in document.text:
            self._count(f"documents with characters that were lost before ({_LOST})")
        if "-->" in document.text and _SUBTITLE.search(document.text):
            self._count("subtitles with their times, which are trained as they stand")
        for what, form in _AS_THEY_STAND.items():
            if form.match(document.text):
                self._count(f"{what}, which are trained as they stand")
        text = self.repaired(document.text)
        if text == document.text:
            return document
        before, after = _line_starts(document.text), _line_starts(text)
        headings = (
            Heading(after[bisect_right(before, h.at) - 1], h.level, self.repaired(h.title))
            for h in document.headings
        )
        return Text(text, tuple(headings), document.goes_on)

    def _turn(self, turn: Message, where: str) -> Message:
        if turn.role == "assistant" and turn.trained:
            self._look_at(turn.content, where)
        content, thought = self.repaired(turn.content), self.repaired(turn.thought)
        if (content, thought) == (turn.content, turn.thought):
            return turn
        return replace(turn, content=content, thought=thought)

    def _look_at(self, answer: str, where: str) -> None:
        if _LOST in answer:
            self._count(f"answers with characters that were lost before ({_LOST})", where)
        if answer[:1] == "#" and answer.strip() in _EXCEL_ERRORS:
            self._count("answers that are an error of Excel, as #N/A or #REF!", where)
        if "\\n" in answer and "\n" not in answer and "`" not in answer:
            self._count(
                "answers with a line break written as \\n, which is trained as it stands", where
            )
        if ("<" in answer or "&" in answer) and "```" not in answer and _HTML.search(answer):
            self._count("answers that hold HTML, which is trained as it stands", where)

    def _count(self, what: str, where: str = "") -> None:
        count, first = self._counts.get(what, (0, where))
        self._counts[what] = count + 1, first

    def repaired(self, text: str) -> str:
        """Each line as it was before it was read in a wrong encoding."""
        if self._is_all_sound or text.isascii() or not _suspicious().search(text):
            return text
        return "\n".join(map(self._line, text.split("\n")))

    def _line(self, line: str) -> str:
        from ftfy import fix_encoding
        from ftfy.badness import is_bad

        place = None if line.isascii() else _suspicious().search(line)
        if place is None or not is_bad(line):
            return line
        found = fix_encoding(line, _config())
        if found == line or is_bad(found):
            self._doubtful += 1
            self._left = self._left or line[max(place.start() - 10, 0) :][:_LONGEST_SHOWN]
            return line
        self._repaired += 1
        self._from_to = self._from_to if self._from_to[0] else _shown(line, found)
        return found


def _line_starts(text: str) -> list[int]:
    return [0, *accumulate(len(line) + 1 for line in text.split("\n"))]


def _letters() -> tuple[str, str]:
    """What the first bytes of UTF-8's letters are in another encoding, and what those behind."""
    leading, behind = (
        "".join({char for name in _READ_AS for char in bytes(codes).decode(name, "ignore")})
        for codes in (range(0xC2, 0xF5), range(0x80, 0xC0))
    )
    controls = "".join(map(chr, range(0x80, 0xA0)))  # of what a page of Windows leaves open
    return leading, behind + controls


@cache
def _suspicious() -> re.Pattern[str]:
    """Two characters that a letter of UTF-8 may be in another encoding."""
    leading, behind = map(re.escape, _letters())
    before_a_space = "ÃÂ"  # that does not break, in most files
    return re.compile(f"[{leading}][{behind}]|[{before_a_space}] ")


@cache
def _config() -> "TextFixerConfig":
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        replace_lossy_sequences=False, decode_inconsistent_utf8=False, fix_c1_controls=False
    )


def _shown(before: str, after: str) -> tuple[str, str]:
    """The first word that differs."""
    pairs = zip(before.split(" "), after.split(" "), strict=False)
    found = next((pair for pair in pairs if pair[0] != pair[1]), (before, after))
    return found[0][:_LONGEST_SHOWN], found[1][:_LONGEST_SHOWN]
