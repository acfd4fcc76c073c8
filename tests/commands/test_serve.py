"""The page, clicked through in a real browser; the API, asked by OpenAI's own client; and
everything that their server refuses."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from support.browser import DESKTOP, PHONE, Browser, browser
from support.jobs import ROOT
from support.small_adapters import random_adapter

from trainer.commands import admission
from trainer.commands.admission import Limits
from trainer.commands.serve import Server, names_of
from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Message
from trainer.corpus.formats import format_of, read
from trainer.engine.decode_rows import DecodeRows
from trainer.errors import SettingsError
from trainer.inference.chat_model import ChatModel, Manner, load_chat_models
from trainer.settings import Settings

QUESTION = "How heavy is the Curlew?"
LONG = "word " * 700  # fewer characters than the limit, more tokens than the model reads
USUAL = Limits()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ChatModel]]:
    runs = {"one": random_adapter(tmp_path_factory.mktemp("one"))}
    torch.manual_seed(1)
    runs["two"] = random_adapter(tmp_path_factory.mktemp("two"), target_modules=["down_proj"])
    where = {name: str(run) for name, run in runs.items()}
    made = load_chat_models(where, Settings.read({}, {}, trains=False), None)
    yield made
    together = made["one"].together
    assert together is not None
    together.finish()


@pytest.fixture
def model(models: dict[str, ChatModel]) -> ChatModel:
    return models["one"]


@pytest.fixture
def server(model: ChatModel) -> Iterator[Server]:
    with running(model) as made:
        yield made


class running:
    """A server that answers in the background."""

    def __init__(self, model: Any, **more: Any) -> None:
        models = model if isinstance(model, dict) else {"results/faq-1": model}
        self._server = Server(models, 0, **more)

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.ending.set()
        self._server.shutdown()
        self._server.server_close()


def client(server: Server, key: str = "any") -> openai.OpenAI:
    url = f"http://localhost:{server.server_port}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)


def user(question: str) -> Any:
    return [{"role": "user", "content": question}]


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def send(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Status and the body's last line as JSON; the page as text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text if text.startswith("<!") else json.loads(text.splitlines()[-1])


def ask(server: Server, question: Any, **headers: str) -> tuple[int, Any]:
    kind = {"Content_Type": "application/json"} | headers
    return send(server, "POST", "/ask", json.dumps({"question": question}).encode(), **kind)


# -- in a browser ---------------------------------------------------------------------------------


def answers(window: Browser) -> list[str]:
    found = "[...document.querySelectorAll('article')].map(a => a.innerText)"
    return [str(text) for text in window.script(f"return {found}")]


def idle(window: Browser) -> bool:
    return not window.script("return document.querySelector('#ask').disabled")


def shoot(window: Browser, name: str) -> None:
    """A picture to look at, in the folder that SCREENSHOTS names."""
    if folder := os.environ.get("SCREENSHOTS"):
        window.screenshot(Path(folder) / f"{name}.png")


@pytest.mark.parametrize(
    ("name", "size", "dark"),
    [("desktop", DESKTOP, False), ("phone", PHONE, True)],
)
def test_a_question_is_typed_and_its_answer_streams_in(
    name: str, size: tuple[int, int], dark: bool, model: ChatModel
) -> None:
    tuned, base = ("".join(model.stream(QUESTION, tuned=which)) for which in (True, False))
    assert tuned != base
    paced = PacedModel(model)
    with running(paced) as server, browser(size, dark=dark) as window:
        window.open(f"http://localhost:{server.server_port}/")
        assert window.text("h1") == "builtin:tiny"
        window.type("#question", QUESTION + "\ue007")
        begun = "return document.querySelector('.answer')?.textContent"
        window.wait_for(lambda: window.script(begun))  # the first piece, while no other is made
        assert not idle(window)
        assert len(window.script(begun)) < len(tuned)
        paced.go_on.set()
        window.wait_for(lambda: answers(window) and idle(window))
        assert answers(window)[0].split("\n\n")[-1].strip().endswith(tuned.strip())

        assert window.script("return document.querySelector('#question').value") == ""
        window.click("label[for=base]")
        window.type("#question", QUESTION)
        window.click("#ask")
        window.wait_for(lambda: len(answers(window)) == 2 and idle(window))
        assert answers(window)[0].strip().endswith(base.strip())

        window.click("[for=both]")  # both answers below one question
        window.type("#question", QUESTION + "\ue007")
        window.wait_for(lambda: "TUNED" in answers(window)[0] and idle(window))
        assert len(answers(window)) == 3 and answers(window)[0].count(QUESTION) == 1
        told = [answers(window)[0].find(part) for part in (QUESTION, "BASE", "TUNED")]
        assert told == sorted(told) and -1 not in told
        assert not window.overflows()
        shoot(window, name)

        window.script(f"document.querySelector('#question').value = {json.dumps(LONG)}")
        window.click("#ask")
        window.wait_for(lambda: window.text("[role=alert]"))
        assert "more than the model reads; shorten it" in window.text("[role=alert]")
        assert idle(window)
        shoot(window, f"{name}-error")
        seen = window.devtools("Runtime.evaluate", expression="document.title")
        assert seen["result"]["value"] == "Ask builtin:tiny"


def test_ctrl_c_ends_the_server_and_the_page_says_so() -> None:
    program = (
        "from test_serve import SlowModel; from trainer.commands import serve; "
        "from trainer.runtime import signals; "
        "signals.install(); signals.deliver(); serve.serve({'slow': SlowModel()}, 0)"
    )
    path = f"{ROOT}:{ROOT}/tests:{ROOT}/tests/commands"
    process = subprocess.Popen(
        [sys.executable, "-uc", program],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    with browser() as window:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        window.open(address)
        window.type("#question", QUESTION + "\ue007")
        window.wait_for(lambda: answers(window) and "word" in answers(window)[0])
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        window.wait_for(lambda: idle(window))
        window.type("#question", QUESTION)
        window.click("#ask")
        window.wait_for(lambda: window.text("[role=alert]"))
        assert "is it still running?" in window.text("[role=alert]")


def test_stop_ends_the_answer_on_the_page_and_in_the_model() -> None:
    slow = SlowModel()
    with running(slow) as server, browser() as window:
        window.open(f"http://localhost:{server.server_port}/")
        window.type("#question", QUESTION + "\ue007")
        window.wait_for(lambda: answers(window) and "word" in answers(window)[0])
        window.click("#stop")
        window.wait_for(lambda: idle(window))
        assert window.text("[role=alert]") == ""
        assert slow.closed.wait(120)


def test_answers_are_copied_called_good_or_corrected_and_the_next_run_learns_them(
    model: ChatModel, tmp_path: Path
) -> None:
    kept, given = tmp_path / "kept.jsonl", "".join(model.stream(QUESTION)).strip()
    buttons = "return [...document.querySelectorAll('.who')].map(who => who.innerText)"
    with running(model, kept_in=kept) as server, browser(PHONE) as window:
        window.open(f"http://localhost:{server.server_port}/")
        allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        window.devtools("Browser.grantPermissions", permissions=allowed)
        window.click("#remember")
        window.type("#question", QUESTION + "\ue007")
        window.wait_for(lambda: answers(window) and idle(window))
        window.click(".who button")
        window.wait_for(lambda: "Copied" in window.script(buttons)[0])
        assert window.script("return navigator.clipboard.readText()") == given
        assert not kept.exists()
        window.click(".who button:nth-of-type(2)")
        window.wait_for(lambda: "kept" in window.script(buttons)[0])

        window.type("#question", QUESTION + "\ue007")
        window.wait_for(lambda: len(answers(window)) == 2 and idle(window))
        window.click(".who button:last-child")
        window.script("document.querySelector('.change textarea').value = ''")
        window.type(".change textarea", "Less than\na kilogram.")
        assert not window.overflows()
        shoot(window, "correct")
        window.click(".change button")
        window.wait_for(lambda: "kept" in window.script(buttons)[0])
        assert answers(window)[0].endswith("Less than\na kilogram.")
    asked, before = Message("user", QUESTION), Message("assistant", given, trained=False)
    found = read(kept, format_of(kept.name), Columns())
    assert [list(record.messages) for record in found if isinstance(record, Conversation)] == [
        [asked, Message("assistant", given)],
        [asked, before, asked, Message("assistant", "Less than\na kilogram.")],
    ]


class PacedModel:
    """Gives the first piece of an answer, and the others once it may go on."""

    def __init__(self, model: ChatModel) -> None:
        self._model, self.base, self.go_on = model, model.base, threading.Event()
        self.remembers, self.together = model.remembers, None

    def stream(self, question: str, *, tuned: bool, is_ended: Callable[[], bool]) -> Iterator[str]:
        for piece in self._model.stream(question, tuned=tuned, is_ended=is_ended):
            yield piece
            self.go_on.wait(300)


# -- without one ----------------------------------------------------------------------------------


class SlowModel:
    """Says a word every few milliseconds until it is closed or `enough` is set."""

    base, remembers, together, warnings = "slow", False, None, ()

    def __init__(self) -> None:
        self.started, self.closed, self.enough = (threading.Event() for _ in range(3))

    def stream(self, question: str, *, tuned: bool, is_ended: Callable[[], bool]) -> Iterator[str]:
        self.started.set()
        try:
            while not (self.enough.wait(0.005) or is_ended()):
                yield "word "
        finally:
            self.closed.set()


def test_the_answer_is_that_of_the_model_in_lines_of_json(server: Server, model: ChatModel) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    body = json.dumps({"question": f" {QUESTION} ", "tuned": False})
    connection.request("POST", "/ask", body, {"Content-Type": "application/json"})
    lines = [json.loads(line) for line in connection.getresponse().read().splitlines()]
    assert lines[-1] == {"done": True}
    assert "".join(line.get("text", "") for line in lines) == "".join(
        model.stream(QUESTION, tuned=False)
    )


def test_what_was_said_before_is_given_to_the_model(server: Server, model: ChatModel) -> None:
    said = [["Who?", "A bird."]]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    body = json.dumps({"question": QUESTION, "said": said})
    connection.request("POST", "/ask", body, {"Content-Type": "application/json"})
    lines = [json.loads(line) for line in connection.getresponse().read().splitlines()]
    turns = [Message("user", "Who?"), Message("assistant", "A bird."), Message("user", QUESTION)]
    expected = "".join(model.stream(turns))
    assert "".join(line.get("text", "") for line in lines) == expected
    assert expected != "".join(model.stream(QUESTION))


def test_the_page_begins_as_the_command_says(model: ChatModel) -> None:
    for compare, chosen in ((False, "tuned"), (True, "both")):
        made = Server({"faq": model}, 0, compare=compare)
        made.server_close()
        assert re.findall(r'value="(\w+)" checked', made.page) == [chosen]
        assert 'id="remember" >' in made.page


def test_the_page_may_load_and_run_nothing_but_itself(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/")
    response = connection.getresponse()
    page, policy = response.read().decode(), response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; style-src 'nonce-")
    assert page.count(f'nonce="{policy.split("nonce-")[1].split(chr(39))[0]}"') == 2
    assert "http" not in page
    assert "{{" not in page


def test_names_are_text_on_the_page(model: ChatModel) -> None:
    hostile = Server({"<script>alert(1)</script>": model}, 0)
    hostile.server_close()
    assert "<script>alert" not in hostile.page


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Host": "evil.example"}, 403, "only the page of this address"),
        ({"Origin": "http://evil.example"}, 403, "only the page of this address"),
        ({"Origin": "null"}, 403, "only the page of this address"),
        ({"Content_Type": "text/plain"}, 415, "application/json"),
        ({"Content_Length": "10000000"}, 413, f"at most {USUAL.characters} characters"),
        ({"Content_Length": "-1"}, 413, f"at most {USUAL.characters} characters"),
        ({"Content_Length": "many"}, 411, "needs a Content-Length"),
    ],
)
def test_what_the_page_would_not_send_is_refused(
    headers: dict[str, str], status: int, words: str, server: Server
) -> None:
    answered, record = ask(server, QUESTION, **headers)
    assert answered == status
    assert words in record["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"question": 3}', 400),
        (b'{"question": "  "}', 400),
        (b'{"question": "a", "tuned": "no"}', 400),
        (b'{"question": "a", "said": "b"}', 400),
        (b'{"question": "a", "said": [["b"]]}', 400),
        (b'{"question": "a", "said": [["b", 3]]}', 400),
        (json.dumps({"question": "a", "said": [["b", "c" * USUAL.said]]}).encode(), 413),
        (json.dumps({"question": "a" * (USUAL.characters + 1)}).encode(), 413),
        (b"[" * 20_000, 400),
        (rb'{"question": "\ud800"}', 400),
    ],
)
def test_what_is_no_question_is_refused(body: bytes, status: int, server: Server) -> None:
    answered, record = send(server, "POST", "/ask", body, Content_Type="application/json")
    assert answered == status
    assert record["error"]


@pytest.mark.parametrize(
    ("record", "status", "words"),
    [
        ({"question": "a"}, 400, "an answer to keep looks like"),
        ({"question": "a", "answer": 3}, 400, "an answer to keep looks like"),
        ({"question": "a", "answer": " "}, 400, "is empty"),
        ({"question": "a", "answer": "\ud800"}, 400, "half a character"),
        ({"question": "a", "answer": "b" * (USUAL.kept + 1)}, 413, f"at most {USUAL.kept} "),
        ({"question": "a", "answer": "b"}, 500, "nothing is written there; move it away"),
    ],
)
def test_what_cannot_be_trained_on_is_not_kept(
    record: dict[str, Any], status: int, words: str, model: ChatModel
) -> None:
    with running(model, kept_in=Path("/dev/null")) as server:
        body = json.dumps(record).encode()
        answered, said = send(server, "POST", "/keep", body, Content_Type="application/json")
    assert (answered, words in said["error"]) == (status, True)


@pytest.mark.parametrize(("method", "path"), [("GET", "/etc/passwd"), ("POST", "/")])
def test_there_is_nothing_else(method: str, path: str, server: Server) -> None:
    assert send(server, method, path, b"{}", Content_Type="application/json")[0] == 404


def test_so_many_questions_a_minute_and_then_a_wait(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's and the API's together."""
    monkeypatch.setattr(admission.time, "monotonic", lambda: now)
    now = 1000.0
    with running(model, limits=Limits(a_minute=3)) as server:
        assert [ask(server, LONG)[0] for _ in range(2)] == [200, 200]
        chat = client(server).chat.completions
        assert chat.create(model="results/faq-1", messages=user("Why?")).choices
        now += 59
        with pytest.raises(openai.RateLimitError, match="3 questions a minute") as refused:
            chat.create(model="results/faq-1", messages=user("Why?"))
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.code == "rate_limit_exceeded"
        status, record = ask(server, LONG)
        assert (status, record["error"].partition("; ")[2]) == (429, "try again in 1 s")
        now += 2
        assert ask(server, LONG)[0] == 200


def test_a_line_that_is_too_long_is_not_joined() -> None:
    slow = SlowModel()
    with running(slow, limits=Limits(waiting=3)) as server:
        asking = [threading.Thread(target=ask, args=(server, "?")) for _ in range(3)]
        for thread in asking:
            thread.start()
        line = server.admission._line
        wait_for(lambda: not line._value)  # type: ignore[attr-defined]  # until all are in it
        status, record = ask(server, "?")
        assert (status, "questions are waiting already" in record["error"]) == (429, True)
        slow.enough.set()
        for thread in asking:
            thread.join()
        assert ask(server, "?")[0] == 200


def test_a_page_that_is_closed_ends_its_answer() -> None:
    slow = SlowModel()
    with running(slow) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        body = json.dumps({"question": "?"})
        connection.request("POST", "/ask", body, {"Content-Type": "application/json"})
        connection.getresponse().read(10)
        assert slow.started.is_set()
        connection.sock.shutdown(2)
        connection.close()
        assert slow.closed.wait(120)


def test_the_end_of_the_server_ends_the_answer() -> None:
    slow = SlowModel()
    with running(slow) as server:
        thread = threading.Thread(target=ask, args=(server, "?"))
        thread.start()
        assert slow.started.wait(120)
    assert slow.closed.wait(120)
    thread.join(120)
    assert not thread.is_alive()


# -- by OpenAI's client ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(models: dict[str, ChatModel]) -> Iterator[Server]:
    with running(models) as made:
        yield made


def test_models_are_listed_by_name(api: Server) -> None:
    listed = client(api).models
    assert [model.id for model in listed.list()] == ["one", "two", "builtin:tiny"]
    assert listed.retrieve("two").id == "two"
    with pytest.raises(openai.NotFoundError, match="/v1/models has what is here"):
        listed.retrieve("three")


def test_each_model_answers_by_its_name(api: Server, models: dict[str, ChatModel]) -> None:
    found = {}
    for name, model, tuned in [
        ("one", models["one"], True),
        ("two", models["two"], True),
        ("builtin:tiny", models["one"], False),
    ]:
        given = {"model": name, "messages": user(QUESTION), "max_tokens": 30}
        answer = client(api).chat.completions.create(**given)
        said = model.answer(QUESTION, Manner(most=30), tuned=tuned)
        expected = "".join(said.pieces())
        (choice,), usage = answer.choices, answer.usage
        assert (choice.message.content, choice.message.role) == (expected, "assistant")
        assert choice.finish_reason == ("length" if said.was_cut else "stop")
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
            said.prompt_tokens,
            said.answer_tokens,
            said.prompt_tokens + said.answer_tokens,
        )
        parts = list(
            client(api).chat.completions.create(
                **given, stream=True, stream_options={"include_usage": True}
            )
        )
        assert parts[-1].usage == usage and parts[-1].choices == []
        assert parts[-2].choices[0].finish_reason == choice.finish_reason
        assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == expected
        found[name] = expected
    assert len(set(found.values())) == 3


def test_turns_limits_and_stops_are_heard(api: Server, models: dict[str, ChatModel]) -> None:
    chat = client(api).chat.completions
    turns = [("system", "Be brief."), ("user", "Who?"), ("assistant", "A bird.")]
    turns.append(("user", QUESTION))
    messages: Any = [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns
    ]
    answer = chat.create(model="one", messages=messages, max_completion_tokens=3)
    expected = models["one"].answer([Message(*turn) for turn in turns], Manner(most=3))
    assert answer.choices[0].message.content == "".join(expected.pieces())
    whole = "".join(models["one"].stream(QUESTION))
    cut = chat.create(model="one", messages=user(QUESTION), stop=[whole[2:5], "absent"])
    assert cut.choices[0].message.content == whole[:2]
    assert cut.choices[0].finish_reason == "stop"


def test_an_answer_is_drawn_where_that_is_asked_for(api: Server) -> None:
    def said(**more: Any) -> str:
        answer = client(api).chat.completions.create(
            model="one", messages=user(QUESTION), max_tokens=20, **more
        )
        return str(answer.choices[0].message.content)

    assert len({said(temperature=2) for _ in range(6)}) > 2
    assert {said(temperature=2, top_p=0.0), said(temperature=0)} == {said()}


def test_eight_clients_at_once_are_answered_together_and_right(
    api: Server, models: dict[str, ChatModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [f"How heavy is number {number}?" for number in range(8)]
    expected = ["".join(models["two"].stream(question)) for question in questions]
    widths, step, all_ask = [0], DecodeRows.step, threading.Event()

    def counted(rows: DecodeRows, running: int, *, tuned: bool) -> None:
        widths.append(running)
        all_ask.wait(120)
        step(rows, running, tuned=tuned)

    monkeypatch.setattr(DecodeRows, "step", counted)
    found: dict[int, str] = {}

    def run(number: int) -> None:
        messages, chat = user(questions[number]), client(api).chat.completions
        if number % 2:
            answer = chat.create(model="two", messages=messages)
            found[number] = str(answer.choices[0].message.content)
        else:
            parts = chat.create(model="two", messages=messages, stream=True)
            found[number] = "".join(part.choices[0].delta.content or "" for part in parts)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    together = models["one"].together
    assert together is not None
    wait_for(lambda: len(together._line) + widths[-1] == 8)
    all_ask.set()
    for thread in threads:
        thread.join(120)
    assert [found[number] for number in range(8)] == expected
    assert max(widths) == 8


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_goes_away_frees_its_row(
    streams: bool, api: Server, models: dict[str, ChatModel]
) -> None:
    together = models["one"].together
    assert together is not None
    body = {"messages": user(QUESTION), "temperature": 2, "max_tokens": 500, "stream": streams}
    connection = http.client.HTTPConnection("127.0.0.1", api.server_port)
    posted = "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
    line = api.admission._line
    connection.request(*posted)
    if streams:
        connection.getresponse().read(10)
    connection.sock.shutdown(2)
    connection.close()
    wait_for(lambda: line._value == USUAL.waiting)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"model": "three"}, openai.NotFoundError, "'three' is not here, only one, two, builtin:"),
        ({"messages": []}, openai.BadRequestError, "messages: a list such as"),
        ({"messages": user("word " * 3000)}, openai.BadRequestError, "more than the model reads"),
        ({"messages": user("a" * 100_001)}, openai.APIStatusError, "at most 100000 characters"),
        ({"temperature": 3}, openai.BadRequestError, "temperature: a number from 0 to 2"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens: a whole number of at least 1"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_the_usual_form(
    given: dict[str, Any], error: type[openai.APIStatusError], words: str, api: Server
) -> None:
    for stream in (False, True):
        with pytest.raises(error, match=words):
            client(api).chat.completions.create(
                **{"model": "one", "messages": user("Why?"), "stream": stream} | given
            )


def test_a_server_with_a_key_answers_nobody_else(model: ChatModel) -> None:
    with running({"one": model}, key="sesame") as server:
        with pytest.raises(openai.AuthenticationError, match="started with --api-key") as refused:
            client(server, "other").models.list()
        assert refused.value.code == "invalid_api_key"
        assert send(server, "GET", "/")[0] == ask(server, QUESTION)[0] == 401
        assert [each.id for each in client(server, "sesame").models.list()] == ["one", model.base]


def test_adapters_are_called_by_the_end_of_where_they_are_or_as_is_said() -> None:
    given = ["results/faq-1/adapter", "s3://bucket/models/run-2/", "birds=results/r=3", "a/b=c"]
    assert names_of(given) == {
        "faq-1": "results/faq-1/adapter",
        "run-2": "s3://bucket/models/run-2/",
        "birds": "results/r=3",
        "b-c": "a/b=c",
    }
    with pytest.raises(SettingsError, match="two are called faq; write NAME=b/faq"):
        names_of(["a/faq", "b/faq"])
