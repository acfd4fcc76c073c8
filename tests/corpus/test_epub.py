"""A book is its pages in the order in which they are read."""

from pathlib import Path

import pytest
from support import makers
from support.corpora import read_files

from trainer.corpus.epub import epub
from trainer.corpus.examples import Text, Unusable


def test_chapters_come_in_the_order_of_the_spine(tmp_path: Path) -> None:
    book = makers.epub("<img/>", "<h1>One</h1><p>a</p>", "<h1>Two</h1><p>b</p>")
    (found,) = read_files(tmp_path, {"a.epub": book}).examples
    assert found == Text("# One\n\na\n\n# Two\n\nb")


def test_a_locked_book_is_refused_and_one_with_locked_fonts_read(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(makers.epub("<p>a</p>", locked="OPS/p%200.xhtml"))
    with pytest.raises(Unusable, match="locked"):
        list(epub(path))
    path.write_bytes(makers.epub("<p>a</p>", locked="OPS/font.otf"))
    assert len(list(epub(path))) == 1


@pytest.mark.parametrize(
    "parts", [{"a": "b"}, {"META-INF/container.xml": '<c><rootfile full-path="no.opf"/></c>'}]
)
def test_an_archive_without_pages_is_refused(tmp_path: Path, parts: dict[str, str]) -> None:
    (tmp_path / "a.epub").write_bytes(makers.zipped(parts))
    with pytest.raises(Unusable, match=r"no readable \.epub"):
        list(epub(tmp_path / "a.epub"))
