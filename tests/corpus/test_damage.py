# ruff: noqa: RUF001 - letters of many alphabets
"""Words that a program spoilt are repaired where that is certain, and told where it is not."""

from dataclasses import replace

import pytest
from support.corpora import read_document, read_files
from support.effort import calls_of
from support.makers import jsonl

from trainer.corpus.damage import Damage
from trainer.corpus.examples import Completion, Text


@pytest.mark.parametrize(
    "name, words",
    [
        *(("latin-1", "Fünf Meter für Köln"), ("cp1252", "naïve café"), ("cp1250", "Übergröße")),
        *(
            ("cp1251", "привет"),
            ("mac_roman", "Fünf"),
            ("latin-1", "“l’été”"),
            ("latin-1", "你好吗"),
        ),
    ],
)
def test_utf8_that_was_read_as_another_encoding_goes_back(name: str, words: str) -> None:
    damage = Damage()
    assert damage.repaired(words.encode().decode(name)) == words
    (notice,) = damage.notices()
    assert notice.words.endswith("lines: 1")


@pytest.mark.parametrize(
    "words",
    [
        *(
            "CAFÉ™ à la carte",
            "ESSÉ… NOUS",
            "AÇÃO É NÃO",
            "l’été “x” – ok",
            "Ç…",
            "5×10⁻³ µm",
        ),
        *("„Гарантия“ на товар — «два года»…", "保証期間は二年です。", "╔══╗", "Nein\x85x", "Ÿ®"),
    ],
)
def test_words_that_only_look_so_stay(words: str) -> None:
    damage = Damage()
    assert damage.repaired(words) == words
    assert not list(damage.notices())


def test_a_line_that_is_spoilt_in_part_is_told_and_stays() -> None:
    damage = Damage()
    words = "FÃ¼nf złoty\nFÃ¼nf Meter"
    assert damage.repaired(words) == "FÃ¼nf złoty\nFünf Meter"
    assert [notice.words for notice in damage.notices()] == [
        'UTF-8 that had been read as another encoding is repaired, as "FÃ¼nf" to "Fünf": lines: 1',
        "lines that look like UTF-8 read as another encoding are trained as they stand, as "
        '"FÃ¼nf złoty": 1',
    ]


def test_records_of_every_form_are_repaired(tmp_path):
    spoilt, words = "FÃ¼nf", "Fünf"
    rows = [
        {"question": spoilt, "answer": spoilt, "system": spoilt},
        {"prompt": spoilt, "completion": spoilt},
        {
            "messages": [
                {"role": "user", "content": spoilt},
                {"role": "assistant", "content": spoilt},
            ]
        },
        {"text": spoilt},
    ]
    found = read_files(tmp_path, {"a.jsonl": jsonl(*rows)}).examples
    assert [turn.content for turn in found[0].messages] == [words] * 3
    assert found[1] == Completion(words, words)
    assert [turn.content for turn in found[2].messages] == [words] * 2
    assert found[3].text == words


def test_headings_stand_where_they_stood(tmp_path):
    spoilt = "FÃ¼nf\n\n# GÃ¤ste\n\nKÃ¶ln\n\n## TÃ¼r\n\nx\n"
    document = read_document(tmp_path, "a.md", spoilt)
    assert document.text == "Fünf\n\n# Gäste\n\nKöln\n\n## Tür\n\nx\n"
    assert [(h.title, document.text[h.at :].split("\n")[0]) for h in document.headings] == [
        ("Gäste", "# Gäste"),
        ("Tür", "## Tür"),
    ]


def test_no_heading_looks_through_the_document_again(tmp_path):
    """Of a long one that would take hours."""

    def looks(headings: int) -> int:
        document = read_document(tmp_path, "a.md", "# a\n" * headings)
        spoilt = replace(document, text="FÃ¼nf" + document.text)
        calls = calls_of(lambda: Damage().item(spoilt))
        return sum(calls[name] for name in ("count", "split", "find", "index"))

    looks(10)  # what is kept for all files
    assert looks(200) == looks(100)


@pytest.mark.parametrize(
    "answer, words",
    [
        ("F\ufffdnf", "answers with characters that were lost before (\ufffd): 1, first line 2"),
        ("#REF!", "answers that are an error of Excel, as #N/A or #REF!: 1, first line 2"),
        (
            "<p>Two&nbsp;years",
            "answers that hold HTML, which is trained as it stands: 1, first line 2",
        ),
        (
            r"Two years.\nNo more.",
            r"answers with a line break written as \n, which is trained as it stands: 1, first "
            "line 2",
        ),
        ("a < b & c", None),
        ("```\n<p>Code</p>\n```", None),
    ],
)
def test_what_an_answer_holds_beside_words_is_told(tmp_path, answer, words):
    rows = [{"question": "q", "answer": "a"}, {"question": "r", "answer": answer}]
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(*rows)})
    assert corpus.examples[1].messages[-1].content == answer
    assert corpus.notices == ([f"a.jsonl: {words}"] if words else [])


def test_subtitles_are_told(tmp_path):
    words = "1\n00:00:01,000 --> 00:00:02,000\nHello there\n"
    corpus = read_files(tmp_path, {"a.txt": words.encode(), "b.md": b"a --> b at 00:01"})
    assert corpus.notices == [
        "a.txt: subtitles with their times, which are trained as they stand: 1"
    ]


def test_a_document_with_lost_characters_is_told(tmp_path):
    corpus = read_files(tmp_path, {"a.txt": "F\ufffdnf".encode()})
    assert corpus.notices == ["a.txt: documents with characters that were lost before (\ufffd): 1"]


@pytest.mark.parametrize(
    "text, what",
    [
        ("12/03/24, 10:11 - Kim: How much is it?\n", "chats with their times and names"),
        ("[12.03.24, 10:11:12] Kim: Hi\n", "chats with their times and names"),
        ("3/12/24, 10:11\u202fPM - Kim: Hi\n", "chats with their times and names"),
        ("From: a@b.c\nSubject: x\nMessage-ID: <1@b.c>\n\nHi\n", "e-mails with their headers"),
    ],
)
def test_what_a_program_wrote_for_itself_is_told(text, what):
    found = Damage()
    assert found.item(Text(text)) == Text(text)
    assert [n.words for n in found.notices()] == [f"{what}, which are trained as they stand: 1"]


@pytest.mark.parametrize(
    "text", ["On 12/03/24, 10:11 it was late.\n", "2024-03-12 10:11 - INFO: up\n", "Note: a\nb\n"]
)
def test_prose_with_a_date_or_a_colon_is_prose(text):
    found = Damage()
    found.item(Text(text))
    assert list(found.notices()) == []
