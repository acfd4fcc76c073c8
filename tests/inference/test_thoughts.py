"""A reader sees an answer without the thought in front of it."""

import pytest

from trainer.inference.thoughts import without_thought


@pytest.mark.parametrize(
    "pieces, closing, shown",
    [
        (["Hm, ", "tea.\n</th", "ink>\n\nAt ", "four."], "</think>", ["At ", "four."]),
        (["At ", "four."], "", ["At ", "four."]),
        (["At ", "four."], "</think>", ["At four."]),
        (["Hm.</think>"], "</think>", []),
        ([], "</think>", []),
    ],
)
def test_an_answer_is_shown_from_the_end_of_its_thought_on(pieces, closing, shown):
    assert list(without_thought(pieces, closing)) == shown
