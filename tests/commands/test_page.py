"""What the page asks is read as it was meant, and names on it are text."""

import json

import pytest

from trainer.commands.admission import Limits
from trainer.commands.loopback import RequestRefused
from trainer.commands.page import filled_page, kept_in, most_bytes, question_in
from trainer.corpus.examples import Message

LIMITS = Limits(characters=10, said=8)


def test_a_question_alone_is_a_text_and_behind_others_turns() -> None:
    assert question_in(b'{"question": " Why? "}', LIMITS) == ("Why?", True)
    given = {"question": "Why?", "said": [["Who?", "A."]], "tuned": False}
    turns = (Message("user", "Who?"), Message("assistant", "A."), Message("user", "Why?"))
    assert question_in(json.dumps(given).encode(), LIMITS) == (turns, False)


def test_the_longest_question_in_any_letters_is_small_enough_to_be_read() -> None:
    said = [["\u20ac" * 4, "\u20ac" * 4]]
    body = json.dumps({"question": "\u20ac" * 10, "said": said}).encode()
    assert len(body) <= most_bytes(LIMITS)
    assert question_in(body, LIMITS)[1]
    with pytest.raises(RequestRefused, match="at most 10 characters"):
        question_in(b'{"question": "12345678901"}', LIMITS)


def test_what_stands_in_for_a_name_is_no_markup() -> None:
    page = filled_page({"BASE": "<b>&", "ADAPTER": '"'})
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page and "{{BASE}}" not in page


@pytest.mark.parametrize("said", [[{"role": "user", "content": "Who?"}], ["ab"], [["Who?"]], ["a"]])
def test_what_was_said_is_pairs_and_nothing_else_that_has_two_parts(said: list[object]) -> None:
    body = json.dumps({"question": "Why?", "answer": "So.", "said": said}).encode()
    for read in (kept_in, question_in):
        with pytest.raises(RequestRefused, match="said: questions with their answers") as refused:
            read(body, LIMITS)
        assert refused.value.status == 400
