"""HTTP for this machine alone: who may ask, what a request holds, and answers that come in parts.

Only this machine can connect, and of its browser only our page: a site that was opened beside it
can neither ask (it would need an Origin of ours, or JSON that a browser first asks leave for) nor
come in by a name of its own that resolves to 127.0.0.1 (it would need our Host).
"""

import json
import logging
import secrets
import select
import socket
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainer.runtime.log import one_line

log = logging.getLogger(__name__)

IDLE_S = 30.0  # how long a connection may say nothing


class RequestRefused(Exception):
    """A request that is not answered: its status and one sentence; after `wait_s` it may be."""

    def __init__(
        self, status: int, sentence: str, *, code: str | None = None, wait_s: float = 0
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.wait_s = status, code, wait_s


def object_in(body: bytes) -> dict[str, Any]:
    """The JSON object that a request is. Raises RequestRefused for anything else, and for text
    that no encoding has: half of a pair of UTF-16, which JSON can write."""
    try:
        record = json.loads(body)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestRefused(
            400, "the request holds half a character (\\ud800 to \\udfff)"
        ) from None
    except (ValueError, RecursionError):
        raise RequestRefused(400, "the request is no JSON") from None
    if not isinstance(record, dict):
        raise RequestRefused(400, "the request is no JSON object")
    return record


class LoopbackServer(ThreadingHTTPServer):
    """On 127.0.0.1, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, handler: type["LoopbackHandler"], key: str = "") -> None:
        """With a `key` only those who send it are answered."""
        self.key = key
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks off between two requests is no news."""
        if not isinstance(error := sys.exception(), ConnectionError | TimeoutError):
            log.warning("a request failed (%s: %s)", type(error).__name__, one_line(error))

    @property
    def hosts(self) -> set[str]:
        return {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}


class LoopbackHandler(BaseHTTPRequestHandler):
    """What every kind of request needs."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "qlora-job", ""
    timeout = IDLE_S
    has_begun = False
    """whether something of a response was sent"""
    disable_nagle_algorithm = True  # a piece of an answer is a packet

    def handle_one_request(self) -> None:
        self.has_begun = False  # a connection may send several
        super().handle_one_request()

    def check_asker(self) -> None:
        """Raises RequestRefused for another site, and for one without the key."""
        origin = self.headers.get("Origin")
        ours = {f"http://{host}" for host in self.server.hosts}
        if self.headers.get("Host") not in self.server.hosts or (origin and origin not in ours):
            raise RequestRefused(403, "only the page of this address may ask here")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if self.server.key and not secrets.compare_digest(given.encode(), self.server.key.encode()):
            raise RequestRefused(
                401, "this server was started with --api-key; send it", code="invalid_api_key"
            )

    def body(self, most_bytes: int, most: str) -> bytes:
        """Of a request that is JSON. Raises RequestRefused for another, and for one larger than
        `most` says in words."""
        if self.headers.get_content_type() != "application/json":
            raise RequestRefused(415, "a question is sent as application/json")
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            raise RequestRefused(411, "a question needs a Content-Length") from None
        if not 0 <= length <= most_bytes:
            raise RequestRefused(413, most)
        return self.rfile.read(length)

    def is_gone(self) -> bool:
        """Whether nobody is at the other end any more."""
        try:
            ready, _, _ = select.select([self.connection], [], [], 0)
            return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def send(self, status: int, kind: str, body: bytes, more: Mapping[str, str] = {}) -> None:
        """A whole response."""
        self._headers(status, kind)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, status: int, record: Any, more: Mapping[str, str] = {}) -> None:
        self.send(status, "application/json", json.dumps(record).encode(), more)

    def begin_parts(self, kind: str) -> None:
        """A response whose parts are sent as they are made."""
        self._headers(200, kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_part(self, part: bytes) -> None:
        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.flush()

    def end_parts(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, refused: RequestRefused, record: Any) -> None:
        self.close_connection = True  # what else it sent was not read
        more = {"Retry-After": f"{refused.wait_s:.0f}"} if refused.wait_s else {}
        self.send_json(refused.status, record, more)

    def _headers(self, status: int, kind: str) -> None:
        self.has_begun = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")

    def log_message(self, format: str, *args: Any) -> None:
        """Questions are nobody else's business, and the terminal shows the address only."""
