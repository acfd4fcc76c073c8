"""Text is decoded by its mark, as UTF-8, or by a guess that is named."""

import json

import pytest
from support.corpora import read_named

from trainer.corpus.examples import Text


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
