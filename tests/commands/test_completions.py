"""What a request of the API may hold, and what is said of one that cannot be answered."""

import json
from typing import Any

import pytest

from trainer.commands import completions
from trainer.commands.admission import Limits
from trainer.commands.completions import Request, request_in
from trainer.commands.loopback import RequestRefused
from trainer.corpus.examples import Message
from trainer.inference.chat_model import Manner

NAMES = {"faq": 1, "base": 2}
WHY = [{"role": "user", "content": "Why?"}]


def read(limits: Limits = Limits(), **given: Any) -> Request:  # noqa: B008
    return request_in(json.dumps({"model": "faq", "messages": WHY} | given).encode(), NAMES, limits)


def test_a_request_of_two_fields_is_greedy_and_whole() -> None:
    asked = read()
    assert (asked.model, asked.turns) == ("faq", (Message("user", "Why?"),))
    assert (asked.how, asked.streams, asked.counts) == (Manner(), False, False)
    assert asked.id != read().id


def test_a_request_without_a_model_asks_the_first() -> None:
    assert read(model=None).model == "faq"
    assert read(model="base").model == "base"


def test_fields_that_are_not_known_are_ignored() -> None:
    given = {"seed": 3, "user": "me", "tool_choice": "auto", "presence_penalty": "no"}
    assert read(**given).how == Manner()


def test_what_asks_for_no_other_form_of_answer_passes() -> None:
    given = {"logprobs": False, "response_format": {"type": "text"}, "tools": [], "functions": None}
    assert read(**given).how == Manner()


def test_how_to_answer_is_read() -> None:
    asked = read(
        max_tokens=9, temperature=0.5, top_p=0.9, stop=["a", "b"], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    assert asked.how == Manner(9, 0.5, 0.9, ("a", "b"))
    assert (asked.streams, asked.counts) == (True, True)
    assert read(max_completion_tokens=5, max_tokens=9, stop="a").how == Manner(5, stops=("a",))
    assert read(max_tokens=None, temperature=None, stop=None, stop_=1).how == Manner()


def test_an_answer_is_no_longer_than_the_server_allows() -> None:
    limits = Limits(answer_tokens=40)
    assert [read(limits, max_tokens=most).how.most for most in (7, 10**9, None)] == [7, 40, 40]


def test_turns_are_texts_or_lists_of_texts() -> None:
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": "c", "name": "x"},
        *WHY,
    ]
    assert read(messages=turns).turns == (
        Message("system", "Be brief."),
        Message("user", "ab"),
        Message("assistant", "c"),
        Message("user", "Why?"),
    )


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"model": "other"}, 404, "'other' is not here, only faq, base"),
        ({"model": 3}, 404, "3 is not here"),
        ({"model": ["faq"]}, 404, "is not here"),
        ({"messages": None}, 400, "messages: a list such as"),
        ({"messages": []}, 400, "messages: a list such as"),
        ({"messages": ["Why?"]}, 400, "a role is one of system, developer, user, assistant"),
        ({"messages": [{"role": "robot", "content": "a"}]}, 400, "a role is one of"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, 400, "a role is one of"),
        ({"messages": [{"role": "user"}]}, 400, "the content of user is a text"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "the content of user is a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "the content of user is a text",
        ),
        ({"messages": [*WHY, {"role": "assistant", "content": "a"}]}, 400, "the last is the user"),
        ({"messages": [{"role": "user", "content": "a" * 101}]}, 413, "at most 100 characters"),
        ({"n": 2}, 400, "n: one answer"),
        ({"logprobs": True}, 400, "logprobs: not done here, an answer is plain text; leave it out"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format: not done here"),
        ({"tools": [{"type": "function"}]}, 400, "tools: not done here"),
        ({"max_tokens": 0}, 400, "max_tokens: a whole number of at least 1"),
        ({"max_tokens": True}, 400, "max_tokens: a whole number"),
        ({"max_completion_tokens": "9"}, 400, "max_tokens: a whole number"),
        ({"temperature": 2.1}, 400, "temperature: a number from 0 to 2"),
        ({"temperature": "hot"}, 400, "temperature: a number from 0 to 2"),
        ({"top_p": -1}, 400, "top_p: a number from 0 to 1"),
        ({"top_p": float("nan")}, 400, "top_p: a number from 0 to 1"),
        ({"top_p": 10**400}, 400, "top_p: a number from 0 to 1"),
        ({"temperature": -(10**400)}, 400, "temperature: a number from 0 to 2"),
        ({"stop": [""]}, 400, "stop: a text or a list of at most 16"),
        ({"stop": ["a"] * 17}, 400, "stop: a text or a list of at most 16"),
        ({"stop": "b" * 501}, 400, "of up to 500 characters"),
        ({"stop": [3]}, 400, "stop: a text or a list of at most 16"),
    ],
)
def test_what_cannot_be_answered_is_said(given: Any, status: int, words: str) -> None:
    with pytest.raises(RequestRefused, match=words) as refused:
        read(Limits(messages=100), **given)
    assert refused.value.status == status
    error = completions.error(refused.value)["error"]
    assert error["message"] == str(refused.value) and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 20_000])
def test_what_is_no_json_object_is_said(body: bytes) -> None:
    with pytest.raises(RequestRefused, match="the request is no JSON"):
        request_in(body, NAMES, Limits())


def test_half_a_character_is_refused_wherever_it_stands() -> None:
    for body in (rb'{"messages": [{"role": "user", "content": "\ud800"}]}', rb'{"stop": "\udfff"}'):
        with pytest.raises(RequestRefused, match="half a character"):
            request_in(body, NAMES, Limits())


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "authentication_error"), (429, "rate_limit_error"), (500, "server_error")],
)
def test_errors_have_the_usual_types(status: int, kind: str) -> None:
    assert completions.error(RequestRefused(status, "No."))["error"] == {
        "message": "No.", "type": kind, "param": None, "code": None,
    }  # fmt: skip
