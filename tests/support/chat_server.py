"""A server that speaks OpenAI's chat completions, on this machine's loopback."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class ChatServer:
    """What it is asked, and what it answers: `write` makes the text of a request's last message.

    `troubles` are taken one a request before it answers as it should: a status, or the way in
    which an answer is no whole one ("length", "cut", "page", "empty", "deep", "large").
    """

    url: str = ""
    key: str = ""
    write: Callable[[str], str] = lambda text: text
    troubles: list[int | str] = field(default_factory=list)
    retry_after: int | None = None
    usage: Any = None
    refuses: Callable[[Body], str | None] = lambda body: None
    seen: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: Any = field(default_factory=threading.Lock)


@contextmanager
def chat_server(**given: Any) -> Iterator[ChatServer]:
    state = ChatServer(**given)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.seen.append(body)
                state.keys.append(self.headers.get("Authorization"))
                trouble = state.troubles.pop(0) if state.troubles else None
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            self._answer(body, trouble)
            with state.lock:
                state.at_once -= 1

        def _answer(self, body: Body, trouble: int | str | None) -> None:
            refused = state.refuses(body)
            if self.path != "/v1/chat/completions":
                return self._send(404, {"error": {"message": f"no {self.path}"}})
            if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
                given = self.headers.get("Authorization", "")
                return self._send(401, {"error": {"message": f"Incorrect API key: {given}"}})
            if isinstance(trouble, int):
                return self._send(trouble, {"error": {"message": "not now"}})
            if refused is not None:
                return self._send(400, {"error": {"message": refused}})
            if trouble == "page":
                return self._send(200, "<html>Welcome</html>")
            if trouble == "deep":
                return self._send(200, "[" * 100_000)
            if trouble == "large":
                return self._send(200, " " * (20 << 20))
            text = state.write(body["messages"][-1]["content"])
            reason = "length" if trouble == "length" else "stop"
            message = {"role": "assistant", "content": None if trouble == "empty" else text}
            choices = [{"index": 0, "message": message, "finish_reason": reason}]
            answer = {"object": "chat.completion", "model": body["model"], "choices": choices}
            answer |= {"usage": state.usage} if state.usage else {}
            self._send(200, answer, cut=trouble == "cut")

        def _send(self, status: int, content: Any, cut: bool = False) -> None:
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status != 200 and state.retry_after is not None:
                self.send_header("Retry-After", str(state.retry_after))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
