"""What the data became, in words."""

from dataclasses import replace

from support.run_records import record

from trainer.dataset.seen import SeenRecord
from trainer.reporting.data_section import data_rows, file_type_rows, schedule_rows, title

SEEN = SeenRecord("faq.csv", 3, 400, 45, 23, 1, False, [])


def test_what_was_skipped_and_noticed_is_listed_by_name() -> None:
    skipped = {"skipped": 9, "skipped_first": ["a.png: unsupported .png", "b.csv row 3: empty"]}
    found = record(data=record().data.to_json() | skipped | {"assumed_first": ["c: not used: id"]})
    rows = dict(data_rows(found.settings, found.data))
    assert rows["skipped"].splitlines() == ["9", *skipped["skipped_first"], "and 7 more"]
    assert rows["noticed"] == "c: not used: id"
    assert dict(data_rows(found.settings, replace(found.data, assumed_first=())))["noticed"] == (
        "nothing"
    )


def test_kinds_of_files_are_a_table_that_a_run_of_before_has_not() -> None:
    long = "." + "x" * 60
    kinds = {".csv": {"files": 1, "records": 1200}, long: {"files": 2, "records": 0}}
    found = record(data=record().data.to_json() | {"by_file_type": kinds}).data
    header, *rows = file_type_rows(found)
    assert header == ["", "files", "records"]
    assert rows == [[".csv", "1", "1,200"], [".xxxxxxxxxxxx…", "2", "0"]]
    assert len(file_type_rows(record().data)) == 1


def test_the_schedule_gives_its_reasons_one_a_line() -> None:
    schedule = replace(record().schedule, reasons=["so little data", "an adapter"])
    assert dict(schedule_rows(schedule))["because"] == "so little data\nan adapter"


def test_a_record_is_named_with_what_of_it_is_trained() -> None:
    assert title(SEEN) == "faq.csv, 3 of 400: 45 tokens, 23 trained"
    assert title(replace(SEEN, cut=True)).endswith("; its end is cut off")
    assert title(replace(SEEN, spelt_out=["<s>", "</s>"])).endswith(
        "; <s>, </s> in it is plain text"
    )
    assert title(replace(SEEN, count=1, sequences=12)) == (
        "faq.csv: 45 tokens, 23 trained; the first of 12 sequences"
    )
