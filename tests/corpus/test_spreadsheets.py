"""CSV files and workbooks as people and Excel save them are their rows."""

from datetime import datetime

import pytest
from support.corpora import read_files, read_named
from support.makers import xlsx

from trainer.corpus.examples import Conversation, Message
from trainer.errors import DataError


def qa(question, answer):
    return Conversation((Message("user", question), Message("assistant", answer)))


@pytest.mark.parametrize(
    "content",
    [
        "question,answer\nA?,B\n",
        "sep=;\nquestion;answer\nA?;B\n",
        '"sep=,"\nquestion,answer\nA?,B\n',
        "question,answer,,\nA?,B,,\n",
        "question,answer\nA?,B,\n",
        "Our FAQ 2024,\n,\nquestion,answer\nA?,B\n",
        "Our FAQ, all of it\nquestion;answer\nA?;B\n",
        "question;answer\n\nA?;B\n;\n",
        'question, answer\nA?, "B"\n',
    ],
)
def test_what_excel_adds_to_a_csv_refuses_nothing(tmp_path, content):
    assert read_files(tmp_path, {"a.csv": content.encode()}).examples == [qa("A?", "B")]


def test_a_header_that_comes_again_is_no_record(tmp_path):
    joined = b"question,answer\nA?,B\n" * 2
    corpus = read_files(tmp_path, {"a.csv": joined, "b.csv": b"question,answer\nC?,D\n" * 20})
    assert corpus.examples == [qa("A?", "B"), qa("C?", "D")]
    assert corpus.notices == [
        "a.csv: 1 row repeats the header and is not used, first line 3",
        "b.csv: 19 rows repeat the header and are not used, first line 3",
    ]


def test_what_stands_above_the_header_is_told(tmp_path):
    content = b"Our FAQ,,\nmade by us,,\nquestion,answer,id\nA?,B,7\n"
    corpus = read_files(tmp_path, {"a.csv": content})
    assert corpus.notices == [
        "a.csv: what stands above the header on line 3 is not used",
        "a.csv: not used: column id",
    ]


def test_a_row_of_values_that_look_like_names_is_no_header(tmp_path):
    corpus = read_named(tmp_path, a_csv=b"id,words\n1,text\n2,hello\n", good_txt=b"good")
    assert [skip.split(": ")[0] for skip in corpus.skipped] == ["a.csv line 2", "a.csv line 3"]


def test_signs_that_a_workbook_writes_as_numbers_are_signs(tmp_path):
    content = xlsx([["question", "answer"], ["A?", "B_x000D_\nC _x_"]])
    assert read_files(tmp_path, {"a.xlsx": content}).examples == [qa("A?", "B\nC _x_")]


def test_line_numbers_count_what_stands_above(tmp_path):
    corpus = read_named(tmp_path, a_csv=b"sep=;\nquestion;answer\nA?;B\nC?\n")
    assert corpus.skipped == ["a.csv line 4: has 1 field and the header has 2"]


def test_a_workbook_is_the_rows_of_the_sheets_that_have_columns_to_train_on(tmp_path):
    faq = [
        ["Our FAQ"],
        [],
        ["Question", "Answer", None, None],
        ["A?", 7, None, "note"],
        ["C?", True],
    ]
    more = [["Frage", "Antwort"], ["Wann?", datetime(2024, 5, 1, 12)]]
    corpus = read_files(tmp_path, {"a.xlsx": xlsx(faq, [["To do"], ["call Anna"]], more)})
    assert corpus.examples == [qa("A?", "7"), qa("C?", "true"), qa("Wann?", "2024-05-01T12:00:00")]
    assert corpus.notices == [
        "a.xlsx: what stands above the header on Sheet row 3 is not used",
        "a.xlsx: sheet Sheet1: it has no column to train on and is not used",
        "a.xlsx: not used: column column 4",
    ]


def test_a_workbook_without_such_a_sheet_is_told_which_columns_it_has(tmp_path):
    corpus = read_named(tmp_path, a_xlsx=xlsx([["id", "words"], [1, "a"]]), good_txt=b"good")
    (skip,) = corpus.skipped
    assert skip.startswith("a.xlsx Sheet row 2: needs") and "it has id, words" in skip


def test_a_header_of_very_many_columns_is_read_in_one_pass(tmp_path):
    """When each name was looked for among all of them, this one took hours."""
    names = ",".join(f"c{number}" for number in range(200_000))
    corpus = read_named(tmp_path, a_csv=f"question,answer,{names}\nA?,B{',' * 200_000}\n".encode())
    assert corpus.examples == [qa("A?", "B")]


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_questions_and_answers_need_no_header_where_nothing_else_fits(tmp_path, name):
    rows = [["Who may borrow?", "Anyone"], ["How long?", "A week"]]
    content = xlsx(rows) if name == "a.xlsx" else "\n".join(map(",".join, rows)).encode()
    corpus = read_files(tmp_path, {name: content})
    assert corpus.examples == [qa(*row) for row in rows]
    assert corpus.notices == [
        f"{name}: it has no header; its columns are read as question and answer"
    ]


def test_a_table_without_a_header_is_told_to_have_none(tmp_path):
    with pytest.raises(DataError, match=r'begins with "Saws are sharp\."; put a row above'):
        read_files(tmp_path, {"a.csv": b"Saws are sharp.,Yes\nDrills too.,No\n"})


def test_a_tsv_with_commas_between_its_columns_is_read(tmp_path):
    found = read_files(tmp_path, {"a.tsv": b"question,answer\nWhy?,So\n"}).examples
    assert [turn.content for turn in found[0].messages] == ["Why?", "So"]


def test_a_quote_inside_of_a_field_is_refused_with_how_to_write_it(tmp_path):
    with pytest.raises(DataError, match=r"line 2: a quote closes before .* doubled"):
        read_files(tmp_path, {"a.tsv": b'question\tanswer\n"Hi" is what?\tA word\n'})
    advised = b'question\tanswer\n"""Hi"" is what?"\tA word\n'
    (found,) = read_files(tmp_path, {"a.tsv": advised}).examples
    assert found.messages[0].content == '"Hi" is what?'
