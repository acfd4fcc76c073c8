"""A Word document is what Word shows as its final text, each word once."""

from pathlib import Path

import pytest
from support import makers

from trainer.corpus.docx import docx
from trainer.corpus.examples import Notice, Unusable


def run(words: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{words}</w:t></w:r>'


def paragraph(*runs: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr>{''.join(runs)}</w:p>"


def cell(*words: str, properties: str = "") -> str:
    inner = "".join(w if w.startswith("<") else paragraph(run(w)) for w in words)
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{inner}</w:tc>"


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def read(folder: Path, body: str, **parts: str) -> str:
    return read_all(folder, body, **parts)[0]


def read_all(folder: Path, body: str, **parts: str) -> tuple[str, list[Notice]]:
    (folder / "a.docx").write_bytes(makers.word(body, **parts))
    found = list(docx(folder / "a.docx"))
    words = "".join(part for part in found if isinstance(part, str)).strip()
    return words, [part for part in found if isinstance(part, Notice)]


FEE, TEN, TWELVE = run("The fee is "), run("ten"), run("twelve")


@pytest.mark.parametrize(
    "inner",
    [
        f"<w:del><w:r><w:delText>ten</w:delText></w:r></w:del><w:ins>{TWELVE}</w:ins>",
        f"<w:moveFrom>{TEN}</w:moveFrom><w:moveTo>{TWELVE}</w:moveTo>",
        f"<w:sdt><w:sdtPr/><w:sdtContent>{TWELVE}</w:sdtContent></w:sdt>",
        f"<w:smartTag><w:smartTag>{TWELVE}</w:smartTag></w:smartTag>",
        f'<w:fldSimple w:instr="DOCPROPERTY fee">{TWELVE}</w:fldSimple>',
        f"<w:hyperlink>{TWELVE}</w:hyperlink>",
        f'<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>fee</w:instrText></w:r>'
        f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{TWELVE}'
        '<w:r><w:fldChar w:fldCharType="end"/></w:r>',
        f"<mc:AlternateContent><mc:Choice>{TWELVE}</mc:Choice><mc:Fallback>{TWELVE}</mc:Fallback>"
        "</mc:AlternateContent>",
        f"{TWELVE}{run('ten', '<w:vanish/>')}",
    ],
    ids=[
        "insertion",
        "move",
        "control",
        "tag",
        "simple field",
        "link",
        "field",
        "choice",
        "hidden",
    ],
)
def test_what_word_shows_is_read_once(tmp_path: Path, inner: str) -> None:
    body = paragraph(FEE, inner, run(" crowns."))
    assert read(tmp_path, body) == "The fee is twelve crowns."


def test_a_paragraph_whose_end_was_taken_out_goes_on_in_the_next(tmp_path: Path) -> None:
    first = paragraph(run("One "), properties="<w:rPr><w:del/></w:rPr>")
    assert read(tmp_path, first + paragraph(run("line."))) == "One line."
    letter = paragraph(run("O"), properties='<w:framePr w:dropCap="drop"/>')
    assert read(tmp_path, letter + paragraph(run("ne line."))) == "One line."


def test_headings_are_known_by_style_outline_and_what_a_style_is_based_on(tmp_path: Path) -> None:
    styles = (
        '<w:style w:styleId="berschrift2"><w:name w:val="heading 2"/></w:style>'
        '<w:style w:styleId="Own"><w:name w:val="Own"/><w:basedOn w:val="berschrift2"/></w:style>'
        '<w:style w:styleId="Titel"><w:name w:val="Title"/></w:style>'
        '<w:style w:styleId="Loop"><w:name w:val="Loop"/><w:basedOn w:val="Loop"/></w:style>'
    )
    body = "".join(
        paragraph(run(name), properties=f'<w:pStyle w:val="{name}"/>')
        for name in ("Titel", "berschrift2", "Own", "Loop", "Unknown")
    )
    body += paragraph(run("Outline"), properties='<w:outlineLvl w:val="2"/>')
    assert read(tmp_path, body, styles=styles).split("\n\n") == [
        *("# Titel", "## berschrift2", "## Own", "Loop", "Unknown", "### Outline"),
    ]


def test_nested_tables_and_merged_cells_are_read_once(tmp_path: Path) -> None:
    merged = cell("Day", properties='<w:vMerge w:val="restart"/>') + cell("from") + cell("to")
    covered = (
        cell("", properties="<w:vMerge/>") + cell(table(cell("8") + cell("9")), "") + cell("6")
    )
    wide = cell("closed", properties='<w:gridSpan w:val="3"/>')
    assert read(tmp_path, table(merged, covered, wide)) == (
        "Day | from | to\n | 8 \\| 9 | 6\nclosed"
    )


def test_a_table_of_one_column_is_a_frame_around_what_it_holds(tmp_path: Path) -> None:
    heading = paragraph(run("Note"), properties='<w:outlineLvl w:val="0"/>')
    assert read(tmp_path, table(cell(heading, "Words"))) == "# Note\n\nWords"


def test_a_row_that_was_taken_out_is_gone(tmp_path: Path) -> None:
    gone = f"<w:trPr><w:del/></w:trPr>{cell('a')}{cell('b')}"
    assert read(tmp_path, table(gone, cell("c") + cell("d"))) == "c | d"


def test_a_text_box_follows_its_paragraph(tmp_path: Path) -> None:
    box = f"<w:txbxContent>{paragraph(run('Boxed.'))}</w:txbxContent>"
    choices = f"<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
    body = paragraph(run("Be"), f"<w:r><mc:AlternateContent>{choices}</mc:AlternateContent></w:r>")
    assert read(tmp_path, body + paragraph(run("After."))) == "Be\n\nBoxed.\n\nAfter."


def test_formulas_heights_and_breaks_are_in_the_line(tmp_path: Path) -> None:
    a, two = (f"<m:r><m:t>{words}</m:t></m:r>" for words in ("a", "2"))
    fraction = f"<m:f><m:num>{a}</m:num><m:den>{two}</m:den></m:f>"
    formula = f"<m:oMath>{fraction}</m:oMath>"
    high = run("2", '<w:vertAlign w:val="superscript"/>')
    body = paragraph(run("A = "), formula, run(" m"), high, "<w:r><w:br/></w:r>", run("and"))
    assert read(tmp_path, body) == "A = a/2 m²\nand"


def test_struck_out_words_are_marked_as_such(tmp_path: Path) -> None:
    body = paragraph(FEE, run("ten ", "<w:strike/>"), TWELVE)
    assert read(tmp_path, body) == "The fee is ~~ten~~ twelve"


def test_lists_and_headings_have_the_numbers_that_word_shows(tmp_path: Path) -> None:
    formats = ("decimal", "%1."), ("lowerLetter", "%1.%2)"), ("bullet", "o")
    levels = "".join(
        f'<w:lvl w:ilvl="{at}"><w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for at, (form, text) in enumerate(formats)
    )
    restarted = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride>'
    lists = f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>' + "".join(
        f'<w:num w:numId="{number}"><w:abstractNumId w:val="0"/>{override}</w:num>'
        for number, override in ((1, ""), (2, restarted))
    )
    styles = (
        '<w:style w:styleId="H"><w:name w:val="heading 2"/><w:pPr><w:numPr><w:numId w:val="1"/>'
        "</w:numPr></w:pPr></w:style>"
    )

    def item(words: str, level: int, number: int = 1) -> str:
        place = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
        return paragraph(run(words), properties=place)

    heading = paragraph(run("Scope"), properties='<w:pStyle w:val="H"/>')
    items = item("a", 1), item("b", 1), item("", 1), item("c", 1), item("d", 2), item("e", 0)
    body = heading + "".join(items) + item("f", 1) + item("g", 0, 2) + item("none", 0, 0)
    assert read(tmp_path, body, styles=styles, numbering=lists).split("\n\n") == [
        *("## 1. Scope", "  1.a) a", "  1.b) b", "  1.d) c", "    * d", "2. e", "  2.a) f"),
        *("7. g", "none"),
    ]


def test_a_cell_that_spans_columns_leaves_the_others_in_theirs(tmp_path: Path) -> None:
    wide = cell("Open", properties='<w:gridSpan w:val="2"/>') + cell("Note")
    narrow = cell("8") + cell("9") + cell("late")
    assert read(tmp_path, table(wide, narrow)) == "Open |  | Note\n8 | 9 | late"


def test_notes_stand_at_the_end(tmp_path: Path) -> None:
    body = paragraph(run("Words"), '<w:r><w:footnoteReference w:id="2"/></w:r>')
    separator = f'<w:footnote w:type="separator" w:id="0">{paragraph(run("—"))}</w:footnote>'
    notes = f'{separator}<w:footnote w:id="2">{paragraph(run("A note."))}</w:footnote>'
    assert read(tmp_path, body, footnotes=notes) == "Words[^2]\n\n[^2]: A note."


def test_a_document_of_another_writer_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(
        makers.docx(("Title", "A"), ("Normal", "b"), rows=[["c", "d"]])
    )
    assert "".join(docx(tmp_path / "a.docx")) == "# A\n\nb\n\nc | d\n\n"


def test_an_archive_without_a_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(makers.zipped({"a.txt": "a"}))
    with pytest.raises(Unusable, match="holds no document"):
        list(docx(tmp_path / "a.docx"))


def test_what_stands_around_the_text_is_told_and_not_used(tmp_path):
    body = paragraph(run("Seen "), run("not seen", "<w:vanish/>"))
    words, notices = read_all(
        tmp_path,
        body,
        header=paragraph(run("Draft of the Lamp Shed")),
        comments=f"<w:comment>{paragraph(run('Really?'))}</w:comment>",
    )
    assert words == "Seen"
    assert {(notice.words, notice.amount) for notice in notices} == {
        ("what stands in hidden text is not used", "2 words"),
        ("what stands in headers and footers is not used", "5 words"),
        ("what stands in comments is not used", "1 word"),
    }


def test_the_number_of_a_page_is_nothing_to_tell(tmp_path):
    foot = paragraph(run("Page "), run("1"), run(" of "), run("3"))
    assert read_all(tmp_path, paragraph(run("Seen")), header=foot) == ("Seen", [])


def test_signs_of_fonts_are_the_characters_that_they_are(tmp_path):
    def sign(font, char):
        return f'<w:r><w:sym w:font="{font}" w:char="{char}"/></w:r>'

    drawn = run("\uf06d", '<w:rFonts w:ascii="Symbol"/>')
    signs = sign("Symbol", "F0B0"), sign("Wingdings", "F0FC"), sign("Webdings", "F041")
    body = paragraph(run("20"), signs[0], run("C "), signs[1], drawn, signs[2])
    words, (notice,) = read_all(tmp_path, body)
    assert words == "20°C ✓μ"
    assert (notice.words, notice.amount) == (
        "signs of fonts that have no letters are left out",
        "1 sign",
    )


def test_a_chart_follows_its_paragraph_as_a_table(tmp_path):
    value = '<c:pt idx="0"><c:v>{}</c:v></c:pt>'
    series = f"<c:tx>{value.format('Bar')}</c:tx><c:cat>{value.format('P1')}</c:cat>"
    series += f"<c:val>{value.format('40.0')}</c:val>"
    chart = f'<c:chart xmlns:c="urn:chart"><c:ser>{series}</c:ser></c:chart>'
    drawn = '<w:r><w:drawing><c:chart xmlns:c="urn:chart" w:id="chart"/></w:drawing></w:r>'
    found = read(tmp_path, paragraph(run("Pumps"), drawn), chart=chart)
    assert found == "Pumps\n\n | Bar\nP1 | 40"
