"""A base's answers outlast the run that asked; what is unreadable is asked again."""

from pathlib import Path

import pytest

from trainer.inference.known_replies import KnownReplies, key_of
from trainer.inference.reply import Reply

SAID = {"a": Reply("yes", True, (4, 5), (6,)), "b": Reply("no, but\n\u00fcber", False)}


def test_answers_are_there_for_the_next_run_with_this_base_alone(tmp_path: Path) -> None:
    KnownReplies(tmp_path, "base 1").keep(SAID)
    again = KnownReplies(tmp_path, "base 1")
    assert {key: again.of(key) for key in "abc"} == SAID | {"c": None}
    assert KnownReplies(tmp_path, "base 2").of("a") is None


def test_later_answers_join_the_former(tmp_path: Path) -> None:
    KnownReplies(tmp_path, "base").keep({"a": SAID["a"]})
    KnownReplies(tmp_path, "base").keep({"b": SAID["b"]})
    assert {key: KnownReplies(tmp_path, "base").of(key) for key in "ab"} == SAID


def test_a_file_that_is_unsound_is_said_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    KnownReplies(tmp_path, "base").keep(SAID)
    (file,) = tmp_path.iterdir()
    file.write_text('{"a": ["ye')
    found = KnownReplies(tmp_path, "base")
    assert found.of("a") is None and f"{file} is not used" in caplog.text
    found.keep(SAID)
    assert KnownReplies(tmp_path, "base").of("a") == SAID["a"]


def test_whatever_decides_an_answer_is_in_its_key() -> None:
    others = [([1, 3], [7], 9), ([1, 2], [8], 9), ([1, 2], [7], 8)]
    assert key_of([1, 2], [7], 9) not in [key_of(*other) for other in others]
    assert key_of([1, 2], [7], 9) == key_of((1, 2), (7,), 9)
