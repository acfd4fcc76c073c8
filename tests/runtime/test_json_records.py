"""What is read of a record has the form that was asked for, or is a ValueError."""

import pytest

from trainer.runtime.json_records import json_object, parse_json, read_object, well_formed


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", "null", "{", b"\xff\xfe{", "1" * 5000, "", '{"a": 1%s}' % ("0" * 400)],
)
def test_what_is_no_object_is_a_value_error(tmp_path, text):
    with pytest.raises(ValueError):
        json_object(text)
    (tmp_path / "a").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError):
        read_object(tmp_path / "a")


def test_what_is_larger_than_any_record_is_not_parsed(monkeypatch):
    monkeypatch.setattr("trainer.runtime.json_records.LARGEST_BYTES", 8)
    assert parse_json("[1]") == [1]
    with pytest.raises(ValueError, match="more than"):
        parse_json("[1, 2, 3]")


@pytest.mark.parametrize("value", [[], "a", 3, None, {"other": 1}])
def test_another_form_is_a_value_error(value):
    with pytest.raises(ValueError, match="not the form of a card"), well_formed("a card"):
        value["name"].strip()
