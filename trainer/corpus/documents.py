"""Pages of other programs -> Markdown: HTML, PDF and Word."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpus.examples import Unusable
from trainer.corpus.packages import check_size

if TYPE_CHECKING:
    from docx.table import Table
    from docx.text.paragraph import Paragraph

# What surrounds the words of a page. `header` stays: it often holds the page's title.
_BOILERPLATE = (
    *("script", "style", "noscript", "template", "nav", "footer", "aside", "form", "button"),
    *("iframe", "svg", "canvas", "dialog"),
)
_PLACEHOLDER = re.compile(
    r"not found|access denied|forbidden|enable javascript|just a moment|under construction"
    r"|accept (all )?cookies|lorem ipsum|sign in to continue|redirecting",
    re.IGNORECASE,
)
_PLACEHOLDER_WORDS = 40


def html(text: str) -> str:
    """The words of a page as Markdown, without navigation and scripts."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(text, "html.parser")
    title = page.title.get_text(" ", strip=True) if page.title else ""
    for element in page.find_all(_BOILERPLATE):
        element.extract()
    root = page.find("main") or page.find("article") or page.find("body") or page
    converter = MarkdownConverter(
        heading_style="ATX",
        strip=["a", "img", "title"],
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )
    words = re.sub(r"\n{3,}", "\n\n", converter.convert_soup(root)).strip()
    if not words:
        raise Unusable("it holds no text beside navigation and scripts")
    if len(words.split()) < _PLACEHOLDER_WORDS and _PLACEHOLDER.search(words):
        raise Unusable("it is a placeholder page: " + " ".join(words.split())[:60])
    return f"# {title}\n\n{words}" if title and not re.search(r"^# ", words, re.M) else words


def pdf(path: Path) -> Iterator[str]:
    """The text of each page."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    reader = PdfReader(path)
    try:
        is_locked = reader.is_encrypted and not reader.decrypt("")
    except DependencyError:
        is_locked = True
    if is_locked:
        raise Unusable("it is encrypted; save it without a password")
    has_text = False
    for page in reader.pages:
        words = page.extract_text().strip()
        has_text = has_text or bool(words)
        yield words + "\n\n"
    if not has_text:
        raise Unusable("it holds no text: scanned pages; run text recognition (OCR) over it first")


def docx(path: Path) -> Iterator[str]:
    """Paragraphs, headings with their `#`, and tables one row a line."""
    from docx import Document
    from docx.text.paragraph import Paragraph

    check_size(path)
    for part in Document(str(path)).iter_inner_content():
        yield _paragraph(part) if isinstance(part, Paragraph) else _table(part)


def _paragraph(part: "Paragraph") -> str:
    words = part.text.strip()
    style = (part.style.name or "") if part.style else ""
    level = re.fullmatch(r"Heading ([1-6])", style)
    hashes = "#" * int(level[1]) + " " if level else "# " if style == "Title" else ""
    if hashes:
        words = " ".join(words.split())
    return f"{hashes}{words}\n\n" if words else ""


def _table(part: "Table") -> str:
    rows = (" | ".join(cell.text.strip() for cell in row.cells) for row in part.rows)
    return "\n".join(rows) + "\n\n"
