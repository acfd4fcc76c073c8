"""A PDF is the text that a reader sees: words whole, large lines headings, ciphers refused."""

from pathlib import Path

import pytest
from support import makers

from trainer.corpus.examples import Notice, Unusable
from trainer.corpus.pdf import pdf


def page(*lines: str, size: int = 12, left: int = 72, top: int = 720) -> bytes:
    shown = "".join(f"({line}) Tj 0 -{size + 2} Td " for line in lines)
    return f"BT /F1 {size} Tf {left} {top} Td {shown}ET ".encode("cp1252")


def read(folder: Path, *contents: bytes) -> list[str | Notice]:
    (folder / "a.pdf").write_bytes(makers.pdf_of(contents))
    return list(pdf(folder / "a.pdf"))


def test_a_pdf_gives_each_page_and_one_without_text_asks_for_ocr(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(makers.pdf("One", "", "Three"))
    assert list(pdf(path)) == ["One\n\n", "\n\n", "Three\n\n"]
    path.write_bytes(makers.pdf("", ""))
    with pytest.raises(Unusable, match=r"\(OCR\)"):
        list(pdf(path))


def test_pages_that_are_pictures_are_told(tmp_path: Path) -> None:
    picture = b"200 0 0 200 72 500 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x7f EI"
    told, *found = read(tmp_path, page("One"), picture, page("Three"), page())
    assert told == Notice(
        "1 of 4 pages are pictures without words: left out; run text recognition (OCR) over the "
        "file"
    )
    assert found == ["One\n\n", "\n\n", "Three\n\n", "\n\n"]


def test_a_pdf_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(makers.locked_pdf("One", "secret"))
    with pytest.raises(Unusable, match="save it without a password"):
        list(pdf(path))
    path.write_bytes(makers.locked_pdf("One", ""))
    assert list(pdf(path)) == ["One\n\n"]


def test_a_word_that_two_lines_divide_is_whole_and_a_compound_keeps_its_hyphen(
    tmp_path: Path,
) -> None:
    lines = ("A well-known case: all compli-", "cated ones, and the well-", "known ones.")
    (found,) = read(tmp_path, page(*lines))
    assert found == "A well-known case: all complicated ones, and the well-known ones.\n\n"


def test_lines_of_large_letters_are_headings(tmp_path: Path) -> None:
    words = [f"Words of line {n} that say something about it." for n in range(12)]
    (found,) = read(
        tmp_path,
        page("The whole", "guide", size=24)
        + page("Install", size=16, top=640)
        + page(*words, top=600),
    )
    assert str(found).split("\n\n")[:2] == ["# The whole guide", "## Install"]
    assert str(found).count("#") == 3


def test_ligatures_are_letters_and_what_stands_for_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(
        makers.pdf_with_map({"o": "o", "a": "\ufb03", "b": "\ufb01", "c": "\0"}, "ocab")
    )
    assert list(pdf(tmp_path / "a.pdf")) == [
        Notice("characters that stand for nothing (U+0000) were left out: 1"),
        "offifi\n\n",
    ]


def test_a_file_of_ciphers_is_refused_and_a_page_of_them_left_out(tmp_path: Path) -> None:
    prose = "the open room in the attic has tea at ten and one may come in at any time "
    # The number of a glyph in most fonts: 29 below that of its letter.
    cipher = "".join(chr(ord(char) - 29) if char > " " else char for char in prose)
    with pytest.raises(Unusable, match="fonts do not say which letters"):
        read(tmp_path, page(*[cipher] * 4))
    found = read(tmp_path, page(*[cipher] * 4), page(*[prose] * 4))
    assert found[0] == Notice("1 of 2 pages hold no readable letters: left out")
    assert found[1] == "\n\n" and str(found[2]).startswith("the open room")


def test_text_of_another_script_is_no_cipher(tmp_path: Path) -> None:
    letters = {chr(97 + n): chr(0x430 + n) for n in range(26)}
    (tmp_path / "a.pdf").write_bytes(makers.pdf_with_map(letters, "bdghjklmnpqrst" * 12))
    (found,) = pdf(tmp_path / "a.pdf")
    assert str(found).startswith("бгжз")
