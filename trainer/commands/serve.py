"""A page on this machine to try a fine-tuned model in a browser. It loads nothing from elsewhere.

Only this machine can connect, and of its browser only this page: a site that was opened beside it
can neither ask (it would need an Origin of ours, or JSON that a browser first asks leave for) nor
come in by a name of its own that resolves to 127.0.0.1 (it would need our Host).
"""

import html
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click

from trainer.corpus.examples import Message
from trainer.errors import JobError, SettingsError
from trainer.inference.chat_model import ChatModel
from trainer.runtime.redaction import redact
from trainer.runtime.signals import Stopped

PAGE = Path(__file__).with_name("page.html")
MOST_CHARACTERS = 4000  # of a question
MOST_SAID = 12_000  # characters of what was said before it
MOST_BYTES = 6 * (MOST_CHARACTERS + MOST_SAID) + 9000  # of a request; JSON writes one in six
QUESTIONS_A_MINUTE = 30
WAITING = 4  # questions, the one that is being answered included
IDLE_S = 30.0  # how long a connection may say nothing
POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class RequestRefused(Exception):
    """A request that is not answered: its status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class AnswerQueue:
    """One answer at a time, few in line, and so many a minute."""

    def __init__(self) -> None:
        self._answering = threading.Lock()
        self._line = threading.BoundedSemaphore(WAITING)
        self._counting = threading.Lock()
        self._asked: deque[float] = deque(maxlen=QUESTIONS_A_MINUTE)
        self.ending = threading.Event()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for it to be this question's turn. Raises RequestRefused when too much is asked."""
        self._count()
        if not self._line.acquire(blocking=False):
            raise RequestRefused(429, f"{WAITING} questions are waiting already; try again soon")
        try:
            with self._answering:
                yield
        finally:
            self._line.release()

    def _count(self) -> None:
        with self._counting:
            now = time.monotonic()
            if len(self._asked) == QUESTIONS_A_MINUTE and now - self._asked[0] < 60:
                wait = 60 - (now - self._asked[0])
                raise RequestRefused(
                    429,
                    f"{QUESTIONS_A_MINUTE} questions a minute are answered; try again in "
                    f"{wait:.0f} s",
                )
            self._asked.append(now)

    def finish(self) -> None:
        """End the answer that is being made: an interpreter that ends while it computes aborts."""
        self.ending.set()
        self._answering.acquire(timeout=10)


class Server(ThreadingHTTPServer):
    """The page and its answers on 127.0.0.1."""

    daemon_threads = True

    def __init__(self, model: ChatModel, adapter: str, port: int, *, compare: bool = False) -> None:
        self.model, self.queue = model, AnswerQueue()
        names = {
            "BASE": model.base,
            "ADAPTER": adapter,
            "MOST_CHARACTERS": str(MOST_CHARACTERS),
            "MOST_SAID": str(MOST_SAID),
            "TUNED": "" if compare else "checked",
            "BOTH": "checked" if compare else "",
            "REMEMBERS": "checked" if model.remembers else "",
        }
        self.page = PAGE.read_text(encoding="utf-8")
        for name, value in names.items():
            self.page = self.page.replace("{{" + name + "}}", html.escape(value))
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def hosts(self) -> set[str]:
        return {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}


class Handler(BaseHTTPRequestHandler):
    """GET / is the page; POST /ask answers in lines of JSON, {"text": …} or {"error": …}."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "qlora-job", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        try:
            self._check_origin()
            if self.path != "/":
                raise RequestRefused(404, f"{self.path}: there is only /")
            nonce = secrets.token_urlsafe(16)
            body = self.server.page.replace("{{NONCE}}", nonce).encode()
            self._send(200, "text/html; charset=utf-8", body, policy=POLICY.format(nonce))
        except RequestRefused as refused:
            self._refuse(refused)

    def do_POST(self) -> None:
        try:
            self._check_origin()
            asked, tuned = self._asked()
            with self.server.queue.turn():
                self._answer(asked, tuned)
        except RequestRefused as refused:
            self._refuse(refused)
        except (ConnectionError, TimeoutError):  # the page was closed, or "stop" was pressed
            self.close_connection = True

    def _check_origin(self) -> None:
        origin = self.headers.get("Origin")
        ours = {f"http://{host}" for host in self.server.hosts}
        if self.headers.get("Host") not in self.server.hosts or (origin and origin not in ours):
            raise RequestRefused(403, "only the page of this address may ask here")

    def _asked(self) -> tuple[str | tuple[Message, ...], bool]:
        if self.path != "/ask":
            raise RequestRefused(404, f"{self.path}: there is only /ask")
        if self.headers.get_content_type() != "application/json":
            raise RequestRefused(415, "a question is sent as application/json")
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            raise RequestRefused(411, "a question needs a Content-Length") from None
        if not 0 <= length <= MOST_BYTES:
            raise RequestRefused(413, f"a question has at most {MOST_CHARACTERS} characters")
        try:
            record = json.loads(self.rfile.read(length))
            question, tuned = record["question"].strip(), record.get("tuned", True)
            said = _turns(record.get("said", []))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RequestRefused(
                400, 'a question looks like {"question": "…", "tuned": true}'
            ) from None
        if not question or not isinstance(tuned, bool):
            raise RequestRefused(400, "there is no question")
        if len(question) > MOST_CHARACTERS:
            raise RequestRefused(413, f"a question has at most {MOST_CHARACTERS} characters")
        if sum(len(turn.content) for turn in said) > MOST_SAID:
            raise RequestRefused(413, f"at most {MOST_SAID} characters are remembered")
        return (*said, Message("user", question)) if said else question, tuned

    def _answer(self, asked: str | tuple[Message, ...], tuned: bool) -> None:
        """Send the answer as it is made. What fails on the way is the last line."""
        self._headers(200, "application/x-ndjson; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            with closing(self.server.model.stream(asked, tuned=tuned)) as pieces:
                for piece in pieces:
                    self._chunk({"text": piece})
                    if self.server.queue.ending.is_set():
                        break
            self._chunk({"done": True})
        except ConnectionError:
            raise
        except Exception as error:  # the page shows it: nothing else would
            fault = str(error) if isinstance(error, JobError) else f"unexpected: {error!r}"
            self._chunk({"error": redact(fault)})
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def _refuse(self, refused: RequestRefused) -> None:
        self.close_connection = True  # what else it sent was not read
        body = json.dumps({"error": str(refused)}).encode()
        self._send(refused.status, "application/json", body)

    def _send(self, status: int, kind: str, body: bytes, *, policy: str = "") -> None:
        self._headers(status, kind)
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")

    def log_message(self, format: str, *args: Any) -> None:
        """Questions are nobody else's business, and the terminal shows the address only."""


def _turns(said: list[list[str]]) -> tuple[Message, ...]:
    """Of questions with their answers. Raises ValueError or TypeError for anything else."""
    pairs = [(question, answer) for question, answer in said]
    if not all(isinstance(text, str) and text.strip() for pair in pairs for text in pair):
        raise ValueError("no text")
    return tuple(
        Message(role, text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )


def serve(model: ChatModel, adapter: str, port: int, *, compare: bool = False) -> None:
    """Answer in the browser until a signal. Raises SettingsError when the port is taken."""
    try:
        server = Server(model, adapter, port, compare=compare)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"--port {port}: {error}; name another one") from None
    click.echo(f"http://localhost:{server.server_port} answers; Ctrl-C ends it")
    try:
        with server:
            server.serve_forever()
    except Stopped:
        server.queue.finish()
