"""What every request is judged by, on a server that answers with what it was sent."""

import http.client
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from trainer.commands.loopback import LoopbackHandler, LoopbackServer, RequestRefused


class Echo(LoopbackHandler):
    def do_POST(self) -> None:
        try:
            self.check_asker()
            self.begin_parts("text/plain")
            for byte in self.body(20, "20 bytes"):
                self.send_part(bytes([byte]))
            self.end_parts()
        except RequestRefused as refused:
            self.refuse(refused, {"error": str(refused)})

    def do_GET(self) -> None:
        self.send_json(200, {"gone": self.is_gone()}, {"X-More": "more"})


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    made = LoopbackServer(0, Echo, key="sesame")
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_parts_arrive_as_one_body_and_the_connection_is_kept(server: LoopbackServer) -> None:
    connection = http.client.HTTPConnection("localhost", server.server_port)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sesame"}
    for text in (b"first", b"and second"):
        connection.request("POST", "/", text, headers)
        assert connection.getresponse().read() == text
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.read(), response.headers["X-More"]) == (b'{"gone": false}', "more")


@pytest.mark.parametrize("given", [None, "Bearer other", "Bearer ", "Bearer sesam\u00e9"])
def test_who_does_not_send_the_key_is_refused(given: str | None, server: LoopbackServer) -> None:
    connection = http.client.HTTPConnection("localhost", server.server_port)
    headers = {"Content-Type": "application/json"} | ({"Authorization": given} if given else {})
    connection.request("POST", "/", b"a", headers)
    response = connection.getresponse()
    assert response.status == 401 and b"--api-key" in response.read()


def test_only_this_machine_can_connect_and_by_its_own_names(server: LoopbackServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    names = {host.partition(":")[0] for host in server.hosts}
    assert names == {"127.0.0.1", "localhost"}


def test_a_connection_that_breaks_off_is_no_news(
    server: LoopbackServer, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()
    close = server.shutdown_request
    server.shutdown_request = lambda request: (close(request), ended.set())  # type: ignore
    try:
        with socket.create_connection(("127.0.0.1", server.server_port)) as raw:
            raw.sendall(b"POST / HTTP/1.1\r\nHost: ")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ended.wait(120)
    finally:
        server.shutdown_request = close  # type: ignore[method-assign]
    assert capfd.readouterr() == ("", "")
