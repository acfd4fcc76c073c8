"""Text is decoded by its mark, as UTF-8, or by a guess that is named."""

import json

import pytest
from support.corpora import read_files, read_named

from trainer.corpus.decoding import declared_charset, page_text
from trainer.corpus.examples import Text, Unusable


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marked_encodings_read_alike(tmp_path, encoding):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    content = (mark + json.dumps({"text": "grüße 😀"}, ensure_ascii=False) + "\n").encode(encoding)
    assert read_named(tmp_path, a_jsonl=content).examples == [Text("grüße 😀")]


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("cp1252", "Les élèves français étudient à la géographie où ils préfèrent été."),
        ("cp1252", "café au lait"),
        ("cp1250", "Zażółć gęślą jaźń, mówił Łukasz, gdy świeciło słońce nad rzeką i łąką."),
        ("cp1251", "Привет, это текст на русском языке про погоду и людей."),
        ("koi8-r", "Привет, это текст на русском языке про погоду и людей."),
        ("cp932", "これは日本語の文章です。今日は天気がいいですね。"),
        ("gb18030", "这是一个中文句子。今天天气很好。我们去公园。"),
        ("utf-16-le", "Plain English, without a mark."),
        ("utf-16-be", "Plain English, without a mark."),
        ("utf-8", "x" * ((1 << 20) - 1) + "ß"),
    ],
)
def test_other_encodings_are_detected_and_the_guess_is_named(tmp_path, encoding, text):
    corpus = read_named(tmp_path, a_txt=text.encode(encoding))
    assert corpus.examples == [Text(text)]
    assert [notice.startswith("a.txt: ") for notice in corpus.notices] == [True] * (
        encoding != "utf-8"
    )


def test_a_byte_behind_the_first_mebibyte_is_counted_from_the_start(tmp_path):
    corpus = read_named(tmp_path, a_txt=b"x" * ((1 << 20) - 1) + b"\xc3(")
    assert corpus.notices[0].startswith("a.txt: byte 1048575 is not UTF-8; read as cp1252")


HUNGARIAN = "<p>A könyveket később is vissza lehet hozni. Őrizze meg a jegyet.</p>"


@pytest.mark.parametrize(
    "head, codec",
    [
        ('<meta charset="iso-8859-2">', "iso8859-2"),
        ("<META http-equiv=Content-Type content='text/html; charset=windows-1250'>", "cp1250"),
        ('<?xml version="1.0" encoding="ISO-8859-2"?>', "iso8859-2"),
        ('<meta charset="iso-8859-2">', "utf-8"),  # sound UTF-8 is UTF-8 whatever it says
        ('<meta charset="nonsense">', "cp1250"),
    ],
)
def test_a_page_is_in_the_encoding_that_it_declares(tmp_path, head, codec):
    page = f"<html><head>{head}</head><body>{HUNGARIAN}</body></html>"
    corpus = read_files(tmp_path, {"a.html": page.encode(codec)})
    assert "később" in corpus.examples[0].text and "Őrizze" in corpus.examples[0].text
    assert bool(corpus.notices) == ("nonsense" in head)
    assert "Őrizze" in page_text(page.encode(codec)) or "nonsense" in head


def test_a_page_of_seven_bits_is_in_the_encoding_that_it_declares(tmp_path):
    page = '<meta charset="iso-2022-jp"><p>図書館は八時から</p>'
    corpus = read_files(tmp_path, {"a.html": page.encode("iso2022_jp")})
    assert corpus.examples[0].text == "図書館は八時から"


def test_pages_that_declare_latin_1_were_written_in_what_holds_more():
    assert declared_charset(b"<meta charset=ISO-8859-1>") == "cp1252"
    assert declared_charset(b"<meta charset=gb2312>") == "gb18030"
    assert declared_charset(b"<meta charset=utf-8>") == declared_charset(b"<p>") == ""


def test_a_page_in_memory_may_be_in_another_encoding():
    assert page_text("é".encode("utf-16")) == "é"
    assert page_text("é".encode("cp1252")) == "é"
    with pytest.raises(Unusable, match="in no encoding"):
        page_text(b"<meta charset=big5>\xff\xff")


PAGE = "<!DOCTYPE html>\n<html><body><p>404</p></body></html>"


@pytest.mark.parametrize(
    "name", ["a_txt", "a_json", "a_csv", "a_jsonl", "a_md", "a_docx", "a_xlsx"]
)
def test_a_web_page_of_another_name_is_told(tmp_path, name):
    for content in (PAGE.encode(), PAGE.encode("utf-16"), b"\n<html lang=en><body>Hi"):
        corpus = read_named(tmp_path, good_txt=b"good", **{name: content})
        said = "it is a web page whatever its name says; name it .html"
        assert corpus.skipped == [f"{name.replace('_', '.')}: {said}"]


@pytest.mark.parametrize(
    "name, content, what",
    [
        ("a_txt", rb"{\rtf1\ansi Hello}", "it is RTF"),
        ("a_docx", rb"{\rtf1\ansi Hello}", "it is RTF"),
        ("a_csv", b"SQLite format 3\0", "it is an SQLite database"),
        ("a_html", b"From: <Saved by Blink>\nSubject: a", "it is a web archive"),
        ("a_txt", b"\xd0\xcf\x11\xe0", "it is an old office document"),
    ],
)
def test_what_another_program_reads_is_told_by_its_first_bytes(tmp_path, name, content, what):
    corpus = read_named(tmp_path, good_txt=b"good", **{name: content})
    assert what in corpus.skipped[0]


def test_prose_about_pages_is_prose(tmp_path):
    words = b"<p align=center>A README</p>\n\n<!DOCTYPE html> begins a page."
    assert read_named(tmp_path, a_md=words).skipped == []
