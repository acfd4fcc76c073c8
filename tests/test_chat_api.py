"""Requests to a real server of OpenAI's API: in parallel, tried again, half answers told."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.chat_server import ChatServer, chat_server

from trainer import chat_api
from trainer.chat_api import ChatApi, Completion
from trainer.corpus.examples import Message
from trainer.errors import DataError, JobError, NotAllowedError, SettingsError, UnreachableError
from trainer.runtime.redaction import redact

KEY = "sk-not-for-anybody-to-see"


def api(server: ChatServer, minutes: float = 1.0, **given: str) -> ChatApi:
    given = {"url": server.url, "model": "grader"} | given
    environ = {"OPENAI_API_KEY": KEY}
    return ChatApi.read("QLORA_JUDGE_URL", given["url"], given["model"], minutes, environ)


def ask(server: ChatServer, *texts: str, **given: Any) -> list[Completion | DataError]:
    asked = [(Message("system", "Be short."), Message("user", text)) for text in texts]
    return list(api(server, **given).replies(asked))


def test_each_is_answered_in_order_and_several_are_asked_at_once() -> None:
    together = threading.Barrier(4, timeout=30)

    def write(text: str) -> str:
        together.wait()  # until four requests are here
        return f" {text}! "

    with chat_server(write=write, key=KEY) as server:
        replies = ask(server, *"abcdefgh")
    assert replies == [Completion(f"{text}!", whole=True) for text in "abcdefgh"]
    assert server.most_at_once >= 4
    assert server.keys == [f"Bearer {KEY}"] * 8


def test_the_request_is_what_every_such_server_takes() -> None:
    with chat_server() as server:
        ask(server, "a")
    assert server.seen == [
        {
            "model": "grader",
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "a"},
            ],
            "temperature": 0,
        }
    ]


def test_most_tokens_are_told_by_the_name_that_the_server_knows() -> None:
    def refuses(body: dict[str, Any]) -> str | None:
        return "Unsupported parameter: 'max_tokens'" if "max_tokens" in body else None

    with chat_server() as old, chat_server(refuses=refuses) as new:
        for server in (old, new):
            api(server).reply([Message("user", "a")], 77)
    assert [body.get("max_tokens") for body in old.seen] == [77]
    assert [body.get("max_completion_tokens") for body in new.seen] == [None, 77]


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions"])
def test_the_address_may_be_written_with_and_without_its_end(ending: str) -> None:
    with chat_server() as server:
        assert ask(server, "a", url=server.url + ending) == [Completion("a", whole=True)]


def test_a_server_without_a_key_gets_none() -> None:
    with chat_server() as server:
        keyless = ChatApi.read("QLORA_JUDGE_URL", server.url, "grader", 1.0, {})
        assert list(keyless.replies([[Message("user", "a")]])) == [Completion("a", whole=True)]
    assert server.keys == [None]


def test_a_model_that_takes_no_temperature_is_asked_without_and_not_told_again() -> None:
    def refuses(body: dict[str, Any]) -> str | None:
        return "Unsupported value: 'temperature'" if "temperature" in body else None

    with chat_server(refuses=refuses) as server:
        asked = api(server)
        for _ in range(2):
            assert list(asked.replies([[Message("user", "a")]])) == [Completion("a", whole=True)]
    assert [("temperature" in body) for body in server.seen] == [True, False, False]


@pytest.mark.parametrize("trouble", [429, 500, 503, 408, "cut", "page", "empty"])
def test_what_passes_is_tried_again(trouble: int | str) -> None:
    with chat_server(troubles=[trouble]) as server:
        assert ask(server, "a") == [Completion("a", whole=True)]
    assert len(server.seen) == 2


def test_half_an_answer_is_not_taken_for_a_whole_one() -> None:
    with chat_server(troubles=["length"]) as server:
        assert ask(server, "a") == [Completion("a", whole=False)]


def test_half_a_character_becomes_one_that_can_be_written() -> None:
    with chat_server(write=lambda text: f"a \ud800 {text}") as server:
        assert ask(server, "b") == [Completion("a ? b", whole=True)]


def test_an_answer_that_comes_in_drops_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drop is in time."""
    monkeypatch.setattr(chat_api, "TIMEOUT_S", 0.05)

    def drops() -> Iterator[bytes]:
        while True:
            time.sleep(0.01)
            yield b" "

    with pytest.raises(chat_api._BadAnswer, match=r"what it sends took more than 0\.05 s"):
        chat_api._read(drops())


def test_one_request_that_is_refused_leaves_the_others() -> None:
    def refuses(body: dict[str, Any]) -> str | None:
        return "filtered" if body["messages"][-1]["content"] == "b" else None

    with chat_server(refuses=refuses) as server:
        first, second, third = ask(server, "a", "b", "c")
    assert (first, third) == (Completion("a", whole=True), Completion("c", whole=True))
    assert isinstance(second, DataError) and "answers 400" in str(second)


@pytest.mark.parametrize(
    ("trouble", "kind", "words"),
    [
        (401, NotAllowedError, "set OPENAI_API_KEY to a key that may use it"),
        (404, SettingsError, "see whether QLORA_JUDGE_URL and the model's name are right"),
        (302, SettingsError, "answers 302"),
        (500, UnreachableError, "answers 500"),
        ("page", UnreachableError, "what it sends is no chat completion"),
        ("deep", UnreachableError, "what it sends is no chat completion"),
        ("large", UnreachableError, "it sends more than 16 MiB"),
    ],
)
def test_what_does_not_pass_ends_the_asking_in_a_sentence(
    trouble: int | str, kind: type[JobError], words: str
) -> None:
    with chat_server(troubles=[trouble] * 99) as server, pytest.raises(kind) as caught:
        ask(server, *"abcdefghijklmnopqrstuvwxyz", minutes=0)
    assert words in str(caught.value)
    assert str(caught.value).startswith("grader at 127.0.0.1:")
    assert len(server.seen) < 26


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with chat_server() as server:
        pass
    with pytest.raises(UnreachableError, match=r"did not answer \(ConnectError\)"):
        ask(server, "a", minutes=0)


def test_a_server_that_is_too_slow_is_told_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.chat_api.TIMEOUT_S", 0.2)
    done = threading.Event()

    def write(text: str) -> str:
        done.wait(20)
        return text

    with chat_server(write=write) as server:
        with pytest.raises(UnreachableError, match=r"more than 0\.2 s to answer.*faster device"):
            list(api(server, minutes=0).replies([[Message("user", "one")]]))
        done.set()


def test_a_server_that_says_how_long_to_wait_is_left_alone_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []
    monkeypatch.setattr("trainer.storage.retry._pause", lambda seconds, _: paused.append(seconds))
    with chat_server(troubles=[429, 503], retry_after=7) as server:
        (reply,) = ask(server, "one")
    assert isinstance(reply, Completion) and reply.text == "one"
    assert len(paused) == 2 and min(paused) >= 7


def test_tokens_are_as_the_server_counts_them() -> None:
    with chat_server(usage={"prompt_tokens": 12, "completion_tokens": 3}) as server:
        (reply,) = ask(server, "one")
    assert isinstance(reply, Completion)
    assert (reply.prompt_tokens, reply.completion_tokens) == (12, 3)
    for odd in ("many", {"prompt_tokens": -5, "completion_tokens": 10**30}):
        with chat_server(usage=odd) as server:
            assert ask(server, "one") == [Completion("one", whole=True)]


def test_a_key_that_a_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with chat_server(key="another") as server, pytest.raises(NotAllowedError) as caught:
        ask(server, "a")
    assert KEY in str(caught.value)  # it would be, if what is shown were not redacted
    assert KEY not in redact(str(caught.value))
    assert KEY not in repr(api(server))


def test_nothing_is_sent_to_a_cloud_s_metadata() -> None:
    with pytest.raises(SettingsError, match=r"QLORA_JUDGE_URL: .* link-local"):
        ChatApi.read("QLORA_JUDGE_URL", "http://169.254.169.254/v1", "grader", 1.0, {})
