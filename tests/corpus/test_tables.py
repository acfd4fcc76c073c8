"""Rows of JSON and CSV are what they were, and a table without any is told."""

from support.corpora import read_files, read_named

from trainer.corpus.examples import Text


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path):
    content = '{"text": "one\u2028two\x85three"}\r\n\r\n{"text": "b"}'.encode()
    assert read_named(tmp_path, a_jsonl=content).examples == [
        Text("one\u2028two\x85three"),
        Text("b"),
    ]


def test_a_record_file_without_records_is_skipped(tmp_path):
    corpus = read_named(tmp_path, good_txt=b"good", bad_jsonl=b"\n\n")
    assert "bad.jsonl: it holds no records" in corpus.skipped[0]


def test_values_of_a_csv_stay_the_text_that_they_are(tmp_path):
    values = ["NA", "null", "None", "nan", "007", "1e5", "true", "#REF!"]
    rows = "".join(f"{value},{value}\n" for value in values)
    corpus = read_files(tmp_path, {"a.csv": f"question,answer\n{rows}".encode()})
    assert [example.messages[1].content for example in corpus.examples] == values
