"""The part of the Hugging Face hub that a push or a pull talks to, on a port of this machine."""

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
# Status and headers of the real one's refusals.
GATED = 403, {"X-Error-Code": "GatedRepo"}
UNKNOWN = 404, {"X-Error-Code": "RepoNotFound"}
NO_REVISION = 404, {"X-Error-Code": "RevisionNotFound"}
WRONG_TOKEN = 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
DOWN = 503, {}
A_PAGE = 200, {}


@dataclass
class Hub:
    """What was pushed, by repository, and what can be pulled as `owner/name` from any.

    `refuses` is a status for every POST, `answer` one with its headers for every GET. The next
    `spoils` downloads of a file arrive with one bit flipped. `sizes` are those that it claims of
    files, where they are not those of their bytes.
    """

    url: str = ""
    refuses: int = 0
    answer: tuple[int, dict[str, str]] | None = None
    spoils: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
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
            git = data and _git(data)
            return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": git}

        def _commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.files[line["value"]["path"]] = content
            hub.commits += 1
            self._answer({"commitUrl": f"{hub.url}/owner/name/commit/{OID}", "commitOid": OID})

        def do_GET(self) -> None:
            if hub.answer is not None:
                status, headers = hub.answer
                self._answer({"error": "refused"}, status, **headers)
            elif "/tree/" in self.path:
                self._answer([_listed(name, data) for name, data in hub.files.items()])
            elif "/resolve/" in self.path:
                self._send(self.path.rpartition("/")[2])
            else:  # of the model itself
                siblings = [
                    {"rfilename": name, "size": hub.sizes.get(name, len(data))}
                    for name, data in hub.files.items()
                ]
                self._answer({"id": "owner/name", "sha": OID, "siblings": siblings})

        do_HEAD = do_GET

        def _send(self, name: str) -> None:
            data = hub.files[name]
            headers = {"X-Repo-Commit": OID, "ETag": f'"{_etag(name, data)}"'}
            if self.command == "GET":
                hub.sent.append(name)
                if hub.spoils.get(name, 0) > 0:
                    hub.spoils[name] -= 1
                    data = data[:-1] + bytes([data[-1] ^ 1])
            self._answer(data, **headers)

        def _answer(self, record: Any, status: int = 200, **headers: str) -> None:
            data = record if isinstance(record, bytes) else json.dumps(record).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
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


def _listed(name: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": _etag(name, data), "size": len(data), "pointerSize": 100}
    return entry


def _etag(name: str, data: bytes) -> str:
    """Large files are kept by their SHA-256, small ones by what git makes of them."""
    return hashlib.sha256(data).hexdigest() if name.endswith(".safetensors") else _git(data)


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
