"""Rows without a header are read where their form shows beyond doubt what they are."""

import pytest
from support.corpora import read_files, read_named

from trainer.errors import DataError

QUIZ = "2+2?,3,4,5,B\nSky?,blue,red,pink,A\n"


@pytest.mark.parametrize("above", ["", "0,1,2,3,4\n"], ids=["none", "numbers of pandas"])
def test_questions_with_choices_and_letters_are_known_by_their_form(tmp_path, above):
    corpus = read_files(tmp_path, {"a.csv": (above + QUIZ).encode()})
    assert [[m.content for m in e.messages] for e in corpus.examples] == [
        ["2+2?\n\nA. 3\nB. 4\nC. 5", "B. 4"],
        ["Sky?\n\nA. blue\nB. red\nC. pink", "A. blue"],
    ]
    assert corpus.notices == [
        "a.csv: it has no header; its columns are read as question, A, B, C and answer"
    ]


@pytest.mark.parametrize("rows", ["2+2?,3,4,5,4\nSky?,a,b,c,B\n", "a?,b,c,A\nd?,e,A\n"])
def test_what_could_be_something_else_is_refused(tmp_path, rows):
    corpus = read_named(tmp_path, a_csv=rows.encode(), good_txt=b"good")
    assert "it has no header" in corpus.skipped[0]


def test_a_header_that_comes_again_behind_a_mark_is_no_record(tmp_path):
    joined = "\ufeffquestion,answer\nA?,B\n\ufeffquestion,answer\nC?,D\n"
    corpus = read_files(tmp_path, {"a.csv": joined.encode()})
    assert [e.messages[0].content for e in corpus.examples] == ["A?", "C?"]


def test_what_people_answered_to_a_form_is_no_table_of_questions(tmp_path):
    content = b"Timestamp,What is your name?,What do you sell?\n2024/01/01,Kim,Shoes\n"
    with pytest.raises(DataError, match="its first row asks, as that of a form does"):
        read_files(tmp_path, {"a.csv": content})
