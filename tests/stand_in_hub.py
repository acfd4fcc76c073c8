"""The part of the Hugging Face hub that a push talks to, on a port of this machine."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OID = "1" * 40


@dataclass
class Hub:
    """What was pushed, by repository; `refuses` is a status for every request."""

    url: str = ""
    refuses: int = 0
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    tokens: set[str] = field(default_factory=set)


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.tokens.add(self.headers["Authorization"])
            if hub.refuses:
                self._answer({"error": "refused"}, hub.refuses)
            elif self.path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted['organization']}/{wanted['name']}"
                known = name in hub.private
                is_private = wanted.get("private") or wanted.get("visibility") == "private"
                hub.private.setdefault(name, is_private)
                self._answer({"url": f"{hub.url}/{name}"}, 409 if known else 200)
            elif self.path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = [self._plan(file["path"]) for file in json.loads(body)["files"]]
                self._answer({"files": files})
            elif "/commit/" in self.path:
                self._commit([json.loads(line) for line in body.splitlines()])
            else:
                self._answer({"error": self.path}, 404)

        def _plan(self, path: str) -> dict[str, Any]:
            data = hub.files.get(path)
            git = data and hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": git}

        def _commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.files[line["value"]["path"]] = content
            hub.commits += 1
            self._answer({"commitUrl": f"{hub.url}/owner/name/commit/{OID}", "commitOid": OID})

        def do_GET(self) -> None:  # what is asked when there is nothing to commit
            self._answer({"id": "owner/name", "sha": OID, "siblings": []})

        def _answer(self, record: dict[str, Any], status: int = 200) -> None:
            data = json.dumps(record).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
