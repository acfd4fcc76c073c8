"""Sentences count as people do."""

from trainer.runtime.wording import counted


def test_one_is_one_and_more_are_several():
    assert counted(1, "record") == "1 record"
    assert counted(0, "record") == "0 records"
    assert counted(2000, "record") == "2,000 records"
    assert counted(2, "copy", "copies") == "2 copies"
