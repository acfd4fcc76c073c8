"""Drafts come back from disk as they were, or it is said that they do not."""

import json
from dataclasses import astuple

import pytest

from trainer.preparation.drafts import Draft, read_drafts


def test_drafts_come_back_from_json() -> None:
    drafts = [Draft(0, "What is it?", "It."), Draft(1, "What?", "That.", "no question", True)]
    assert read_drafts(json.loads(json.dumps([astuple(draft) for draft in drafts]))) == drafts


@pytest.mark.parametrize("value", [None, 3, [[1]], [["0", "a", "b", None]], [[0, 1, "b", None]]])
def test_another_form_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="drafts"):
        read_drafts(value)
