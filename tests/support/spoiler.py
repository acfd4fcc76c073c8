"""A proxy in front of an S3 server, over HTTP or TLS, that spoils what passes through it."""

import contextlib
import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

ANSWERS = {
    "503": ("503 Slow Down", "SlowDown", ""),
    "region": ("301 Moved", "PermanentRedirect", "x-amz-bucket-region: eu-west-9\r\n"),
    "expired": ("400 Bad Request", "ExpiredToken", ""),
    "skew": ("403 Forbidden", "RequestTimeTooSkewed", ""),
    "200 error": ("200 OK", "InternalError", ""),
}
HANG_S = 8


class Spoiler:
    """`spoil` the next `times` requests whose first line is `when`."""

    def __init__(self, upstream_port: int, certificate: str = "") -> None:
        self._upstream = upstream_port
        self._lock = threading.Lock()
        self._rule: tuple[str, int, Callable[[str], bool]] = ("", 0, lambda line: False)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._context:
            self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def spoil(self, kind: str, times: int, when: Callable[[str], bool]) -> None:
        with self._lock:
            self._rule = (kind, times, when)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
            with client.makefile("rb") as reader:
                while self._one_request(client, reader):
                    pass
        with contextlib.suppress(OSError):
            client.close()

    def _taken(self, line: str) -> str:
        with self._lock:
            kind, times, when = self._rule
            if times < 1 or not when(line):
                return ""
            self._rule = (kind, times - 1, when)
            return kind

    def _one_request(self, client: socket.socket, reader: BinaryIO) -> bool:
        """Answer one request; whether the connection goes on."""
        line, headers = _head(reader)
        if not line:
            return False
        lower = {name.lower(): value for name, value in headers.items()}
        method, target, _ = line.split(" ")
        is_read = method in ("GET", "HEAD")
        kind = self._taken(line)
        if lower.get("expect") == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if kind == "reset" and not is_read:  # with most of the body on its way
            _reset(client)
            return False
        body = _body(reader, lower)
        if kind == "hang":
            time.sleep(HANG_S)
            return False
        if kind in ANSWERS:
            client.sendall(_refusal(kind, method))
            return True
        if kind == "flip" and not is_read:
            kind, body = "", _flipped(body)
        answer, data = self._ask(method, target, headers, body)
        if method == "HEAD":
            client.sendall(answer + b"\r\n")
            return True
        return _give(client, kind, answer, data)

    def _ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[bytes, bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        server.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in ("expect", "connection"):
                server.putheader(name, value)
        server.endheaders(body)
        reply = server.getresponse()
        data = reply.read()
        lines = [f"HTTP/1.1 {reply.status} {reply.reason}"]
        lines += [f"{n}: {v}" for n, v in reply.getheaders() if n.lower() not in _HOP]
        if method != "HEAD":
            lines.append(f"Content-Length: {len(data)}")
        else:
            lines.append(f"Content-Length: {reply.getheader('Content-Length', '0')}")
        server.close()
        return "\r\n".join(lines).encode("latin-1") + b"\r\n", data


def _head(reader: BinaryIO) -> tuple[str, dict[str, str]]:
    line = reader.readline().decode("latin-1").strip()
    headers: dict[str, str] = {}
    while field := reader.readline().decode("latin-1").strip():
        name, _, value = field.partition(":")
        headers[name] = value.strip()
    return line, headers


def _body(reader: BinaryIO, lower: dict[str, str]) -> bytes:
    """As it came, with the marks of its chunks."""
    if lower.get("transfer-encoding") != "chunked":
        return _exactly(reader, int(lower.get("content-length", 0)))
    body = b""
    while True:
        size = reader.readline()
        body += size + _exactly(reader, int(size.split(b";")[0], 16) + len("\r\n"))
        if int(size.split(b";")[0], 16) == 0:
            return body


def _exactly(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise ConnectionResetError
    return data


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


_HOP = ("connection", "keep-alive", "content-length", "transfer-encoding")


def _refusal(kind: str, method: str) -> bytes:
    status, code, extra = ANSWERS[kind]
    body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
    head = f"HTTP/1.1 {status}\r\n{extra}Content-Type: application/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    if changed:
        changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _give(client: socket.socket, kind: str, head: bytes, data: bytes) -> bool:
    half = data[: len(data) // 2]
    if kind == "flip":
        data = _flipped(data)
    if kind == "no length":
        lines = [h for h in head.split(b"\r\n") if not h.lower().startswith(b"content-length")]
        client.sendall(b"\r\n".join(lines) + b"\r\n" + half)
        return False
    if kind in ("truncate", "reset"):
        client.sendall(head + b"\r\n" + half)
        if kind == "reset":
            _reset(client)
        return False
    if kind == "slow":
        client.sendall(head + b"\r\n")
        step = max(1, len(data) // 10)
        for start in range(0, len(data), step):
            client.sendall(data[start : start + step])
            time.sleep(0.05)
        return True
    client.sendall(head + b"\r\n" + data)
    return True
