"""Sentences count as people do."""

from trainer.runtime.wording import columns, counted, hanging, lasting


def test_one_is_one_and_more_are_several():
    assert counted(1, "record") == "1 record"
    assert counted(0, "record") == "0 records"
    assert counted(2000, "record") == "2,000 records"
    assert counted(2, "copy", "copies") == "2 copies"


def test_times_are_in_units_that_fit():
    assert lasting(0.42) == "0.4 seconds"
    assert lasting(18) == "18 seconds"
    assert lasting(1800) == "30.0 minutes"
    assert lasting(30 * 3600) == "30.0 hours"


def test_a_text_goes_on_below_itself_or_further_to_the_right():
    said = "one two three four five six"
    assert hanging(said, 23, "a  ") == "a  one two three four\n   five six"
    assert hanging(said, 23, "a  ", 2) == "a  one two three four\n     five six"


def test_a_character_takes_as_much_room_as_a_terminal_gives_it():
    assert [columns(char) for char in "aü漢\u0301\u200d"] == [1, 1, 2, 0, 0]
