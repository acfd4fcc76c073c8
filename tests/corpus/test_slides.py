"""A presentation is its slides in their order, titles first."""

from pathlib import Path

import pytest
from support import makers

from trainer.corpus.examples import Unusable
from trainer.corpus.slides import pptx

CELL = "<a:tc>{}<a:txBody><a:p><a:r><a:t>{}</a:t></a:r></a:p></a:txBody></a:tc>"


def test_slides_are_read_in_order_without_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.pptx").write_bytes(makers.pptx(("One", "a\nb"), ("Two", "c")))
    assert "".join(pptx(tmp_path / "a.pptx")) == "# One\n\na\nb\n\n# Two\n\nc\n\n"


def test_groups_and_tables_are_read(tmp_path: Path) -> None:
    row = CELL.format("", "Day") + CELL.format("", "from")
    table = f"<p:graphicFrame><a:tbl><a:tr>{row}</a:tr></a:tbl></p:graphicFrame>"
    words = "<a:p><a:r><a:t>in</a:t></a:r></a:p>"
    group = f"<p:grpSp><p:sp><p:txBody>{words}</p:txBody></p:sp></p:grpSp>"
    (tmp_path / "a.pptx").write_bytes(makers.pptx(("One", "a"), shapes=table + group))
    assert "".join(pptx(tmp_path / "a.pptx")) == "# One\n\na\n\nDay | from\n\nin\n\n"


def test_an_archive_without_a_presentation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pptx").write_bytes(makers.zipped({"a.txt": "a"}))
    with pytest.raises(Unusable, match="holds no presentation"):
        list(pptx(tmp_path / "a.pptx"))
