"""Pages of other programs keep their words and lose what surrounds them."""

from pathlib import Path

import pytest
from support import makers

from trainer.corpus import documents
from trainer.corpus.examples import Unusable


def test_navigation_scripts_and_forms_are_no_words_of_a_page() -> None:
    page = "<nav>Home</nav><script>x()</script><p>Words.</p><form>Name</form><aside>Ad</aside>"
    assert documents.html(page) == "Words."


def test_the_main_part_of_a_page_is_taken_where_it_has_one() -> None:
    page = "<title>T</title><body><div>Menu</div><main><h1>Head</h1><p>Words</p></main></body>"
    assert documents.html(page) == "# Head\n\nWords"


@pytest.mark.parametrize("words", ["404 Not Found", "Just a moment...", "Please enable JavaScript"])
def test_a_page_that_stands_for_another_is_refused(words: str) -> None:
    with pytest.raises(Unusable, match="a placeholder page"):
        documents.html(f"<p>{words}</p>")


def test_a_pdf_gives_each_page_and_one_without_text_asks_for_ocr(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(makers.pdf("One", "", "Three"))
    assert list(documents.pdf(path)) == ["One\n\n", "\n\n", "Three\n\n"]
    path.write_bytes(makers.pdf("", ""))
    with pytest.raises(Unusable, match=r"\(OCR\)"):
        list(documents.pdf(path))


def test_a_pdf_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(makers.locked_pdf("One", "secret"))
    with pytest.raises(Unusable, match="save it without a password"):
        list(documents.pdf(path))


def test_an_old_word_file_is_told_from_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(100))
    with pytest.raises(Unusable, match=r"an old \.doc"):
        list(documents.docx(path))
