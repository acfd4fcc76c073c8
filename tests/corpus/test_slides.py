"""A presentation is its slides in their order, titles first."""

from pathlib import Path

import pytest
from support import makers

from trainer.corpus.examples import Notice, Unusable
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


def test_automatic_numbers_are_those_that_are_shown(tmp_path: Path) -> None:
    def line(words: str, numbers: str = "", level: int = 0) -> str:
        return f'<a:p><a:pPr lvl="{level}">{numbers}</a:pPr><a:r><a:t>{words}</a:t></a:r></a:p>'

    dot, letter = '<a:buAutoNum type="arabicPeriod"/>', '<a:buAutoNum type="alphaLcParenR"/>'
    nine = '<a:buAutoNum type="romanUcParenBoth" startAt="9"/>'
    lines = (
        *(
            line("a", dot),
            line("x", letter, 1),
            line("y", letter, 1),
            line("", dot),
            line("b", dot),
        ),
        *(line("plain"), line("c", dot), line("d", nine), line("none", '<a:buChar char="-"/>')),
    )
    style = f"<a:lstStyle><a:lvl1pPr>{dot}</a:lvl1pPr></a:lstStyle>"
    styled = f"{style}{line('e')}{line('f')}{line('g', '<a:buNone/>')}"
    shapes = "".join(
        f"<p:sp><p:txBody>{body}</p:txBody></p:sp>" for body in ("".join(lines), styled)
    )
    (tmp_path / "a.pptx").write_bytes(makers.pptx(("One", ""), shapes=shapes))
    assert "".join(pptx(tmp_path / "a.pptx")) == (
        "# One\n\n1. a\n  a) x\n  b) y\n2. b\nplain\n1. c\n(IX) d\nnone\n\n1. e\n2. f\ng\n\n"
    )


def test_a_formula_is_one_line_and_not_its_picture(tmp_path: Path) -> None:
    half = "<f><num><r><t>1</t></r></num><den><r><t>2</t></r></den></f>"
    picture = "<Fallback><a:r><a:t>12</a:t></a:r></Fallback>"
    choice = f"<Choice><m><oMath>{half}</oMath></m></Choice>{picture}"
    body = f"<a:p><a:r><a:t>Take </a:t></a:r><AlternateContent>{choice}</AlternateContent></a:p>"
    shape = f"<p:sp><p:txBody>{body}</p:txBody></p:sp>"
    (tmp_path / "a.pptx").write_bytes(makers.pptx(("One", ""), shapes=shape))
    assert "".join(pptx(tmp_path / "a.pptx")) == "# One\n\nTake 1/2\n\n"


def test_an_archive_without_a_presentation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pptx").write_bytes(makers.zipped({"a.txt": "a"}))
    with pytest.raises(Unusable, match="holds no presentation"):
        list(pptx(tmp_path / "a.pptx"))


def test_a_hidden_slide_is_told_and_not_used(tmp_path: Path) -> None:
    parts = makers.unzipped(makers.pptx(("One", "a"), ("Two", "b")))
    second = bytes(parts["ppt/slides/1.xml"])
    parts["ppt/slides/1.xml"] = second.replace(b"<p:sld ", b'<p:sld show="0" ')
    (tmp_path / "a.pptx").write_bytes(makers.zipped(parts))
    *words, notice = pptx(tmp_path / "a.pptx")
    assert words == ["# One\n\n", "a\n\n"]
    assert notice == Notice("hidden slides are not used", "1 slide")


def test_a_chart_is_read_where_it_stands(tmp_path: Path) -> None:
    chart = '<p:graphicFrame><c:chart xmlns:c="urn:chart" r:id="chart"/></p:graphicFrame>'
    parts = makers.unzipped(makers.pptx(("One", "a"), shapes=chart))
    title = "<c:title><a:t>Sales</a:t></c:title>"
    parts["ppt/charts/c.xml"] = (
        f'<c:chartSpace xmlns:c="urn:chart" xmlns:a="urn:a"><c:chart>{title}</c:chart>'
        "</c:chartSpace>"
    )
    parts["ppt/slides/_rels/0.xml.rels"] = makers.relationships({"chart": "../charts/c.xml"})
    (tmp_path / "a.pptx").write_bytes(makers.zipped(parts))
    assert "".join(pptx(tmp_path / "a.pptx")) == "# One\n\na\n\nSales\n\n"
