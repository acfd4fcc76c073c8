"""Text files -> documents: one each, or several where a file is so long that it is better not held
in memory."""

import io
import re
from collections.abc import Callable, Iterator

from trainer.corpus import tables
from trainer.corpus.columns import Columns, layouts
from trainer.corpus.examples import LONGEST_LINE, Heading, Notice, Text, Unusable, checked_text
from trainer.corpus.headings import markdown_headings
from trainer.runtime.wording import counted

LONGEST_DOCUMENT = 4 << 20  # characters
_HEADERS = 1 << 14  # characters that those of a mail have
_ENCODED_MAIL = re.compile(
    r"(?:From .*\n)?(?:[A-Za-z][\w-]*:.*\n|[ \t]+\S.*\n)*"
    r"Content-Transfer-Encoding:[ \t]*(?:quoted-printable|base64)",
    re.IGNORECASE,
)
_LOOKED_AT_LINES, _SIGNS = 8, "\t;,|"
# Code, in which a comment is none, and what begins one in Markdown or Obsidian.
_OPENS = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})|`+|<!--|(?<!\S)%%(?!%)", re.MULTILINE)

FindHeadings = Callable[[str], tuple[Heading, ...]]


def document(text: str, find_headings: FindHeadings = markdown_headings) -> Text:
    """Raises Unusable for one without words."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = checked_text(text, "the file", longest=LONGEST_LINE)
    if not _has_words(text):
        raise Unusable("it holds no words")
    return Text(text, find_headings(text))


def prose(find_headings: FindHeadings, chunks: Iterator[str]) -> Iterator[Text]:
    """The documents of one file. Raises Unusable, also late."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    waiting: list[str] = []
    is_first = True
    for chunk in chunks:
        waiting.append(newlines.decode(chunk))
        if sum(map(len, waiting)) > LONGEST_DOCUMENT:
            text = "".join(waiting)
            end = _last_paragraph(text)
            waiting = [text[end:]]
            _refuse_records(text[:end], is_first)
            if _has_words(text[:end]):
                yield document(text[:end], find_headings)
                is_first = False
    text = "".join(waiting) + newlines.decode("", final=True)
    _refuse_records(text, is_first)
    if is_first or _has_words(text):
        yield document(text, find_headings)


def markdown(chunks: Iterator[str]) -> Iterator[Text | Notice]:
    """The same without comments, which nobody sees who reads the page."""
    left_out = 0
    for found in prose(lambda text: (), chunks):
        text, comments = without_comments(found.text)
        left_out += comments
        if _has_words(text):
            yield document(text)
    if left_out:
        amount = counted(left_out, "comment")
        yield Notice("comments of Markdown, as <!-- … --> and %% … %%, are not used", amount)


def without_comments(text: str) -> tuple[str, int]:
    """(text without comments, how many they were)."""
    if "<!--" not in text and "%%" not in text:
        return text, 0
    kept, comments, done, at = [], 0, 0, 0
    never_closed: set[str] = set()
    ends = _Ends(text)
    while found := _OPENS.search(text, at):
        mark = found.group()
        if found["fence"] or mark[0] == "`":
            at = _end_of_code(ends, found)
            continue
        end = -1 if mark in never_closed else _end_of_comment(ends, found)
        at = found.end() if end < 0 else end
        if end < 0:
            if mark == "<!--":
                never_closed.add(mark)
            continue
        kept.append(text[done : found.start()])
        is_alone = _begins_a_line(text, found.start()) and text[end : end + 1] == "\n"
        done = end + is_alone
        comments += 1
    return "".join((*kept, text[done:])), comments


class _Ends:
    """Where lines and paragraphs of a text end, for whoever goes through it from its begin: each
    part of it is looked through once, however often that is asked."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._found = {"\n": -1, "\n\n": -1}

    def of_line(self, start: int) -> int:
        """The end of the line that `start` is in; that of the text where it is the last."""
        return self._next("\n", start)

    def of_paragraph(self, start: int) -> int:
        return self._next("\n\n", start)

    def _next(self, end: str, start: int) -> int:
        if self._found[end] < start:
            found = self.text.find(end, start)
            self._found[end] = found if found >= 0 else len(self.text)
        return self._found[end]


def _end_of_code(ends: _Ends, opened: re.Match[str]) -> int:
    """Where code ends; behind its mark where nothing closes it on its line."""
    text, line_end = ends.text, ends.of_line(opened.end())
    if fence := opened["fence"]:
        closing = re.compile(rf"^ {{0,3}}{re.escape(fence)}[`~]*[ \t]*$", re.MULTILINE)
        found = closing.search(text, line_end + 1)
        return found.end() if found else len(text)
    end = text.find(opened.group(), opened.end(), line_end)
    return end + len(opened.group()) if end >= 0 else opened.end()


def _end_of_comment(ends: _Ends, opened: re.Match[str]) -> int:
    """Behind what closes it, -1 for nothing. One of Obsidian that begins in a line ends in its
    paragraph: %% may stand anywhere."""
    text, start = ends.text, opened.end()
    if opened.group() == "<!--":
        end = text.find("-->", start)
        return end + 3 if end >= 0 else -1
    is_block = _begins_a_line(text, opened.start()) and text[start : start + 1] == "\n"
    end = text.find("%%", start, len(text) if is_block else ends.of_paragraph(start))
    return end + 2 if end >= 0 else -1


def _begins_a_line(text: str, at: int) -> bool:
    return at == 0 or text[at - 1] == "\n"


def names_columns(head: str, columns: Columns) -> bool:
    """Whether a text that begins with `head` is a table: its first line names what is asked and
    what is answered, with a sign between that the next line has too."""
    first, *others = _first_lines(head) or [""]
    signs = (sign for sign in _SIGNS if sign in first and others and sign in others[0])
    forms = (form for sign in signs for form in layouts(first.split(sign), columns))
    return any(form.kind != "text" for form in forms)


def is_tabbed(head: str) -> bool:
    """Whether as many tabs stand in each of its first lines."""
    lines = _first_lines(head)
    tabs = {line.count("\t") for line in lines}
    return len(lines) > 1 and len(tabs) == 1 and tabs != {0}


def _first_lines(head: str) -> list[str]:
    return [line for line in head.split("\n")[:_LOOKED_AT_LINES] if line.strip()]


def _refuse_records(text: str, is_first: bool) -> None:
    if is_first and tables.holds_json_lines(text):
        raise Unusable("it holds JSON Lines; name it .jsonl")
    if is_first and _ENCODED_MAIL.match(text, 0, _HEADERS):
        raise Unusable("it is an e-mail as it was sent, encoded; save its text")


def _has_words(text: str) -> bool:
    return any(map(str.isalpha, text))


def _last_paragraph(text: str) -> int:
    """The last place behind a paragraph, else a line, else a word, else the end."""
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, len(text) // 2)
        if found >= 0:
            return found + len(separator)
    return len(text)
