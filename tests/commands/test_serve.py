"""The page: clicked through in a real browser, and everything that its server refuses."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import DESKTOP, PHONE, Browser, browser
from support.jobs import ROOT
from support.small_adapters import random_adapter

from trainer.commands import serve as serving
from trainer.commands.serve import MOST_CHARACTERS, MOST_SAID, QUESTIONS_A_MINUTE, Server
from trainer.corpus.examples import Message
from trainer.inference.chat_model import ChatModel, load_chat_model
from trainer.settings import Settings

QUESTION = "How heavy is the Curlew?"
LONG = "word " * 700  # fewer characters than the limit, more tokens than the model reads


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    run = random_adapter(tmp_path_factory.mktemp("run"))
    return load_chat_model(str(run), Settings.read({}, {}, trains=False), None)


@pytest.fixture
def server(model: ChatModel) -> Iterator[Server]:
    with running(model) as made:
        yield made


class running:
    """A server that answers in the background."""

    def __init__(self, model: Any) -> None:
        self._server = Server(model, "results/faq-1", 0)

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.queue.finish()
        self._server.shutdown()
        self._server.server_close()


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
    [("desktop", DESKTOP, False), ("phone", PHONE, False), ("dark", DESKTOP, True)],
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
        "signals.install(); signals.deliver(); serve.serve(SlowModel(), 'slow', 0)"
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


class PacedModel:
    """Gives the first piece of an answer, and the others once it may go on."""

    def __init__(self, model: ChatModel) -> None:
        self._model, self.base, self.go_on = model, model.base, threading.Event()
        self.remembers = model.remembers

    def stream(self, question: str, *, tuned: bool) -> Iterator[str]:
        for piece in self._model.stream(question, tuned=tuned):
            yield piece
            self.go_on.wait(300)


# -- without one ----------------------------------------------------------------------------------


class SlowModel:
    """Says a word every few milliseconds until it is closed or `enough` is set."""

    base, remembers = "slow", False

    def __init__(self) -> None:
        self.started, self.closed, self.enough = (threading.Event() for _ in range(3))

    def stream(self, question: str, *, tuned: bool) -> Iterator[str]:
        self.started.set()
        try:
            while not self.enough.wait(0.005):
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
        made = Server(model, "faq", 0, compare=compare)
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
    hostile = Server(model, "<script>alert(1)</script>", 0)
    hostile.server_close()
    assert "<script>alert" not in hostile.page


def test_only_this_machine_can_connect(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Host": "evil.example"}, 403, "only the page of this address"),
        ({"Origin": "http://evil.example"}, 403, "only the page of this address"),
        ({"Origin": "null"}, 403, "only the page of this address"),
        ({"Content_Type": "text/plain"}, 415, "application/json"),
        ({"Content_Length": "10000000"}, 413, f"at most {MOST_CHARACTERS} characters"),
        ({"Content_Length": "-1"}, 413, f"at most {MOST_CHARACTERS} characters"),
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
        (json.dumps({"question": "a", "said": [["b", "c" * MOST_SAID]]}).encode(), 413),
        (json.dumps({"question": "a" * (MOST_CHARACTERS + 1)}).encode(), 413),
        (b"[" * 20_000, 400),
    ],
)
def test_what_is_no_question_is_refused(body: bytes, status: int, server: Server) -> None:
    answered, record = send(server, "POST", "/ask", body, Content_Type="application/json")
    assert answered == status
    assert record["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/etc/passwd"), ("POST", "/")])
def test_there_is_nothing_else(method: str, path: str, server: Server) -> None:
    assert send(server, method, path, b"{}", Content_Type="application/json")[0] == 404


def test_so_many_questions_a_minute_and_then_a_wait(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.time, "monotonic", lambda: now)
    now = 1000.0
    assert [ask(server, LONG)[0] for _ in range(QUESTIONS_A_MINUTE)] == [200] * QUESTIONS_A_MINUTE
    now += 59
    status, record = ask(server, LONG)
    assert (status, record["error"].partition("; ")[2]) == (429, "try again in 1 s")
    now += 2
    assert ask(server, LONG)[0] == 200


def test_a_line_that_is_too_long_is_not_joined() -> None:
    slow = SlowModel()
    with running(slow) as server:
        asking = [threading.Thread(target=ask, args=(server, "?")) for _ in range(serving.WAITING)]
        for thread in asking:
            thread.start()
        while server.queue._line._value:  # type: ignore[attr-defined]  # until all are in it
            time.sleep(0.01)
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
    assert slow.closed.is_set()
    thread.join(120)
    assert not thread.is_alive()
