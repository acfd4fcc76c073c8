"""Every accepted format becomes the same examples, and documents keep their headings."""

import json
from pathlib import Path

import pytest
from support import makers
from support.corpora import read_files, read_named

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Message, SkippedRecord, Text
from trainer.corpus.formats import SUFFIXES, _records

PAGE = """<html><head><title>The Plover</title><script>track()</script></head><body>
<nav>Home | Shop</nav><h2>In use</h2><p>It weighs <b>430&nbsp;grams</b>.</p>
<ul><li>one</li></ul><footer>All rights reserved</footer></body></html>"""
QA = Conversation((Message("user", "Why?"), Message("assistant", 'So, "because"\nof NA')))
RECORD = {"question": "Why?", "answer": 'So, "because"\nof NA'}
TABLES = {
    "a.csv": b'question,answer\nWhy?,"So, ""because""\nof NA"\n',
    "semicolons.csv": b'Answer;Question\r\n"So, ""because""\r\nof NA";Why?\r\n',
    "a.tsv": b'question\tanswer\nWhy?\t"So, ""because""\nof NA"\n',
    "a.json": makers.jsonl([RECORD]),
    "one.json": makers.jsonl(RECORD),
    "wrapped.json": makers.jsonl({"version": 1, "data": [RECORD]}),
    "lines.json": makers.jsonl(RECORD, RECORD),
    "a.jsonl": makers.jsonl(RECORD),
    "a.ndjson": makers.jsonl(RECORD),
    "a.parquet": makers.parquet([RECORD]),
    "a.arrow": makers.arrow([RECORD]),
    "a.xlsx": makers.xlsx([["question", "answer"], ["Why?", 'So, "because"\nof NA']]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_any_format_gives_the_same_records(tmp_path, name):
    assert read_files(tmp_path, {name: TABLES[name]}).examples == [QA]


@pytest.mark.parametrize(
    "name", [n for n in TABLES if not n.endswith((".parquet", ".arrow", ".xlsx"))]
)
@pytest.mark.parametrize("pack", [makers.gz, makers.zst])
def test_a_packed_table_gives_the_same_records(tmp_path, name, pack):
    packed = f"{name}.{pack.__name__}"
    assert read_files(tmp_path, {packed: pack(TABLES[name])}).examples == [QA]


DOCUMENTS = {
    "a.txt": (b"# not a heading\n", "# not a heading\n", []),
    "a.md": (b"# One\n\n```\n# code\n```\n\nTwo\n---\n", None, [(1, "One"), (2, "Two")]),
    "a.rst": (
        b"=====\nGuide\n=====\n\nUse\n---\n\nText\n\n  Quoted\n  ------\n",
        None,
        [(1, "Guide"), (2, "Use")],
    ),
    "a.html": (
        PAGE.encode(),
        "# The Plover\n\n## In use\n\nIt weighs **430\N{NO-BREAK SPACE}grams**.\n\n* one",
        [(1, "The Plover"), (2, "In use")],
    ),
    "a.pdf": (makers.pdf("First page", "Second"), "First page\n\nSecond\n\n", []),
    "a.pptx": (makers.pptx(("Guide", "Words")), "# Guide\n\nWords\n\n", [(1, "Guide")]),
    "a.epub": (makers.epub("<h1>Guide</h1><p>Words"), "# Guide\n\nWords", [(1, "Guide")]),
    "a.docx": (
        makers.docx(
            ("Title", "Guide"), ("Heading 2", "Use"), ("Normal", "Words"), rows=[["a", "b"]]
        ),
        "# Guide\n\n## Use\n\nWords\n\na | b\n\n",
        [(1, "Guide"), (2, "Use")],
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_keeps_its_words_and_its_headings(tmp_path, name):
    content, text, headings = DOCUMENTS[name]
    (document,) = read_files(tmp_path, {name: content}).examples
    assert isinstance(document, Text)
    assert document.text == (content.decode() if text is None else text)
    assert [(h.level, h.title) for h in document.headings] == headings
    for heading in document.headings:
        lines = document.text[heading.at :].split("\n")[:2]
        assert any(heading.title in line for line in lines)


def test_prose_may_be_as_long_as_it_likes(tmp_path):
    book = "The Plover weighs 430 grams and floats.\n\n" * 150_000  # 6 MB
    tally = read_files(tmp_path, {"book.txt": book.encode()})
    assert sum(len(text.text) for text in tally.examples) > 0.99 * len(book)


def test_every_accepted_suffix_is_read_here():
    names = [*TABLES, *DOCUMENTS, "a.htm", "a.xhtml"]
    assert {Path(name).suffix for name in names} == set(SUFFIXES)


def test_a_page_of_which_little_was_taken_is_named(tmp_path):
    menu = "".join(f"<nav>Borrow, bring back, renew, reserve and pay {n}</nav>" for n in range(9))
    corpus = read_files(tmp_path, {"a.html": f"<body>{menu}<p>We are open.</p></body>".encode()})
    assert corpus.examples == [Text("We are open.")]
    assert corpus.notices == [
        "a.html: 3% of the page's words were taken for its content",
        "a.html (72 words): what stands in its navigation is not used",
    ]


LINES = makers.jsonl(RECORD, RECORD)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst"])
def test_json_lines_named_as_prose_are_refused_with_their_name(tmp_path, name):
    for content in (LINES, b"\r\n" + LINES, makers.jsonl(RECORD), LINES * 40_000):
        corpus = read_named(tmp_path, **{name.replace(".", "_"): content}, good_txt=b"good")
        assert corpus.skipped == [f"{name}: it holds JSON Lines; name it .jsonl"]


def test_prose_that_quotes_json_is_prose(tmp_path):
    for words in (b'{"a": 1}\nis an object of JSON.', b"{braces}\nin prose"):
        assert read_files(tmp_path, {"a.txt": words}).examples == [Text(words.decode())]


@pytest.mark.parametrize("indent", [None, 2])
def test_one_array_named_as_json_lines_is_refused_with_its_name(tmp_path, indent):
    content = json.dumps([RECORD, RECORD], indent=indent).encode()
    corpus = read_named(tmp_path, a_jsonl=content, good_txt=b"good")
    assert corpus.skipped == ["a.jsonl: it is one JSON array and not JSON Lines; name it .json"]


def test_a_list_on_each_line_is_no_array_of_records(tmp_path):
    lines = b'[{"role": "user"}]\n' + makers.jsonl(RECORD)
    corpus = read_named(tmp_path, a_jsonl=lines)
    assert corpus.examples == [QA]
    assert corpus.skipped == ["a.jsonl line 1: the line is a list, not an object"]


@pytest.mark.parametrize("paragraphs", [200_000, 400_000])
def test_a_text_file_of_millions_of_characters_is_read_whole(tmp_path, paragraphs):
    words = "Some words.\n\n" * paragraphs
    corpus = read_files(tmp_path, {"a.txt": words.encode()})
    assert "".join(example.text for example in corpus.examples) == words


def test_an_encoded_mail_is_refused_and_a_plain_one_is_prose(tmp_path):
    mail = b"From: a@b.cd\nContent-Type: text/plain;\n charset=utf-8\n%s\nFive =E2=80=93 six\n"
    encoded = mail % b"Content-Transfer-Encoding: quoted-printable\n"
    for content in (encoded, b"From a@b.cd Mon Jan  1 00:00:00 2024\n" + encoded):
        corpus = read_named(tmp_path, a_txt=content, b_txt=mail % b"Subject: Hi\n")
        assert corpus.skipped == ["a.txt: it is an e-mail as it was sent, encoded; save its text"]


def test_a_list_of_lists_without_words_holds_no_records(tmp_path):
    for content in (b"[[]]", b"[[], [null]]"):
        corpus = read_named(tmp_path, a_json=content, good_txt=b"good")
        assert corpus.skipped == ["a.json: it holds no records"]


def test_a_record_that_nothing_can_be_made_of_costs_no_other() -> None:
    """Whatever a reader of records does not expect, as a value that has no text here."""

    class Odd:
        def __str__(self) -> str:
            raise OverflowError("too large")

    rows = [
        ("line 1", {"text": "one"}),
        ("line 2", {"text": "a", "weight": Odd()}),
        ("line 3", {"text": "three"}),
    ]
    assert list(_records(rows, Columns())) == [
        Text("one"),
        SkippedRecord("line 2", "it is no readable record (too large)"),
        Text("three"),
    ]
