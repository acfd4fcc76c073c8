"""A web server that gives every request the same answer, as servers do that are no S3 server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the environment lead every bucket to `endpoint`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@contextmanager
def one_answer() -> Iterator[tuple[str, dict[str, Any]]]:
    """The server's URL and its answer, to be changed; `seen` keeps the headers of the requests.

    It does not know the header `unknown`. `length` is what it says of the body: 0 is the truth,
    None leaves it out and closes the connection.
    """
    reply: dict[str, Any] = {"status": 200, "headers": {}, "body": b"", "length": 0, "seen": []}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply["seen"].append(dict(self.headers))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            unknown = reply.get("unknown", "") in self.headers
            body = b"<Error><Code>NotImplemented</Code></Error>" if unknown else reply["body"]
            self.send_response(501 if unknown else reply["status"])
            for name, value in reply["headers"].items():
                self.send_header(name, value)
            if reply["length"] is not None:
                self.send_header("Content-Length", str(reply["length"] or len(body)))
            self.close_connection = reply["length"] is None
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")

        do_PUT = do_HEAD = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://localhost:{server.server_port}", reply
    server.shutdown()
    server.server_close()
