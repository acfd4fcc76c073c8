"""Storage without a server: folders, keys, and what is said when a server is not there."""

import errno
import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import (
    DataError,
    DoesNotFitError,
    JobError,
    NotAllowedError,
    SettingsError,
    UnreachableError,
)
from trainer.storage import (
    FolderStore,
    Stored,
    fetch,
    fetch_verified,
    open_store,
    publish,
    read_manifest,
)
from trainer.storage import (
    files as disk,
)
from trainer.storage.endpoints import refuse_link_local
from trainer.storage.parallel import in_parallel
from trainer.storage.s3 import request_options

HELLO = sha256(b"hello").hexdigest()
HOSTILE = [
    "../up",
    "a/../../up",
    "/absolute",
    "a//b",
    "a/./b",
    "new\nline",
    "nul\0",
    "back\\slash",
    "x" * 256,
    "",
    "\ud800",
]


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as the job leaves it for publishing."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "weights").write_bytes(b"hello")
    (tmp_path / "run" / "report.html").write_bytes(b"<p>")
    return tmp_path / "run"


# Reading


def test_a_file_that_goes_while_a_folder_is_listed_is_not_there(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            store.write("here/now", b"and then not")
            store.delete(["here/now"])

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        for _ in range(300):
            assert {stored.name for stored in store.list()} <= {"here/now"}
    finally:
        stop.set()
        writer.join()


def test_a_big_chunk_is_written_in_small_pieces(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Recorder(io.BytesIO):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return super().write(data)

    target, data = Recorder(), os.urandom(3 * disk.PIECE_BYTES + 5)
    assert disk.copy([data, b"", b"x"], target) == (len(data) + 1, sha256(data + b"x").hexdigest())
    assert target.getvalue() == data + b"x"
    assert max(sizes) == disk.PIECE_BYTES


def test_importing_storage_does_not_pay_for_boto3() -> None:
    code = "import sys, trainer.storage; print('boto3' in sys.modules, 'botocore' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"


def test_a_folder_is_read_in_place(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    (data / "b" / "2.txt").write_bytes(b"hello")
    (data / "a.txt").write_bytes(b"")
    fetched = fetch(str(data), tmp_path / "into", retry_minutes=0)
    assert [(f.name, f.path, f.size) for f in fetched] == [
        ("a.txt", data / "a.txt", 0),
        ("b/2.txt", data / "b" / "2.txt", 5),
    ]
    assert fetched[1].sha256 == HELLO
    assert not (tmp_path / "into").exists()


def test_a_single_file_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (fetched,) = fetch(str(tmp_path / "a.txt"), tmp_path / "into", retry_minutes=0)
    assert (fetched.name, fetched.path, fetched.sha256) == ("a.txt", tmp_path / "a.txt", HELLO)


def test_a_missing_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: No such file or directory; check the path"):
        fetch(str(tmp_path / "gone"), tmp_path / "into", retry_minutes=0)


def test_an_empty_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        fetch(str(tmp_path), tmp_path / "into", retry_minutes=0)


def test_a_pipe_is_not_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        fetch(str(tmp_path / "pipe"), tmp_path / "into", retry_minutes=0)


def test_what_leaves_the_folder_or_is_no_file_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_bytes(b"hello")
    (data / "twin.txt").symlink_to("a.txt")
    (data / "leaving").symlink_to("../secret")
    (data / "folder").symlink_to(tmp_path)
    (data / "broken").symlink_to("nowhere")
    (data / "loop").symlink_to("loop")
    os.mkfifo(data / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data / "socket"))
        fetched = fetch(str(data), tmp_path / "into", retry_minutes=0)
    assert [f.name for f in fetched] == ["a.txt", "twin.txt"]
    for name in ("leaving", "folder", "broken", "loop", "pipe", "socket"):
        assert f"{data / name}' is skipped" in caplog.text


def test_a_mounted_configmap_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_23").mkdir()
    (tmp_path / "..2026_11_23" / "a.txt").write_bytes(b"hello")
    (tmp_path / "..data").symlink_to("..2026_11_23")
    (tmp_path / "a.txt").symlink_to("..data/a.txt")
    assert [s.name for s in FolderStore(tmp_path).list()] == ["a.txt"]


def test_a_local_name_that_cannot_be_published_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "new\nline").write_bytes(b"")
    with pytest.raises(DataError, match=r"'new\\nline' holds a control character"):
        fetch(str(tmp_path), tmp_path / "into", retry_minutes=0)


# A folder as a store


def test_a_listing_is_sorted_recursive_and_limited_to_its_prefix(store: FolderStore) -> None:
    for name in ("b/z", "b/a", "a", "bc"):
        store.write(name, b"hello")
    assert store.list() == [Stored(name, 5, HELLO) for name in ("a", "b/a", "b/z", "bc")]
    assert [s.name for s in store.list("b/")] == ["b/a", "b/z"]


def test_an_absent_folder_is_an_empty_store(store: FolderStore) -> None:
    assert store.list() == []
    assert store.read("a") is None


def test_an_upload_is_what_a_download_brings_back(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"hello")
    store.upload(tmp_path / "up", "deep/a")
    assert store.download(Stored("deep/a", 5, HELLO), tmp_path / "new" / "down") == HELLO
    assert (tmp_path / "new" / "down").read_bytes() == b"hello"


@pytest.mark.parametrize("listed", [Stored("a", 4, ""), Stored("a", 5, "another")])
def test_an_object_that_is_not_as_listed_is_not_kept(
    store: FolderStore, tmp_path: Path, listed: Stored
) -> None:
    store.write("a", b"hello")
    with pytest.raises(DataError, match="not what was listed"):
        store.download(listed, tmp_path / "into" / "a")
    assert files(tmp_path / "into") == {}


def test_a_conditional_write_has_one_winner(store: FolderStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.write("a", b"%d" % i, only_if_absent=True), range(8)))
    assert sum(won) == 1
    assert store.read("a") == b"%d" % won.index(True)
    assert [s.name for s in store.list()] == ["a"]


def test_a_conditional_write_works_without_hard_links(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:  # as a bucket mounted as a folder answers
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    assert store.write("a", b"1", only_if_absent=True)
    assert not store.write("a", b"2", only_if_absent=True)
    assert files(Path(store.uri)) == {"a": b"1"}


def test_of_many_updates_none_undoes_another(store: FolderStore) -> None:
    def add(there: bytes | None) -> bytes:
        return (there or b"") + b"."

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.update("a", add), range(50)))
    assert files(Path(store.uri)) == {"a": b"." * 50}
    store.update("a", lambda _: None)
    assert store.read("a") == b"." * 50


def test_an_update_goes_on_where_there_are_no_locks_or_their_holder_is_frozen(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LOCK_S", 0.1)
    with disk.locked(Path(store.uri, "a")):
        store.update("a", lambda _: b"late")
    assert store.read("a") == b"late"

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    store.update("a", lambda _: b"unlocked")
    assert files(Path(store.uri)) == {"a": b"unlocked"}


def test_a_delete_takes_the_emptied_folders_along(store: FolderStore) -> None:
    store.write("run/a/b", b"")
    store.write("run/c", b"")
    store.delete(["run/a/b", "run/never"])
    assert [path.name for path in Path(store.uri).rglob("*")] == ["run", "c"]


def test_a_folder_may_be_removed_whenever_it_is_empty(store: FolderStore, run: Path) -> None:
    stop = threading.Event()

    def remove() -> None:
        while not stop.is_set():
            store.delete(["run/step/a"])

    def sweep() -> None:
        while not stop.is_set():
            store.abort_stale_uploads("run/step/")

    with ThreadPoolExecutor() as others:
        ended = [others.submit(work) for work in (remove, remove, sweep)]
        try:
            for _ in range(100):
                store.upload(run / "report.html", "run/step/a")
        finally:
            stop.set()
    assert [other.result() for other in ended] == [None, None, None]


def test_a_probe_leaves_nothing(store: FolderStore) -> None:
    store.probe()
    assert list(Path(store.uri).iterdir()) == []


def test_a_file_where_the_output_folder_should_be_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="a file and a folder cannot share a name"):
        FolderStore(tmp_path / "file").probe()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_folder(store: FolderStore, name: str) -> None:
    with pytest.raises(DataError):
        store.write(name, b"")
    with pytest.raises(DataError):
        store.read(name)
    assert not Path(store.uri).exists()


def test_no_link_leads_out_of_the_folder(store: FolderStore, tmp_path: Path) -> None:
    Path(store.uri).mkdir()
    (tmp_path / "outside").mkdir()
    (Path(store.uri) / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="leads out of"):
        store.write("link/a", b"")
    assert files(tmp_path / "outside") == {}


def test_a_folder_without_permission_is_not_allowed(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o755)
    (tmp_path / "locked" / "hidden").mkdir(mode=0)
    (tmp_path / "locked").chmod(0o555)
    was = os.geteuid()
    if was == 0:
        # pytest keeps others out of its folders; how many there are depends on how it runs.
        ours = [folder for folder in (tmp_path, *tmp_path.parents) if "pytest-" in str(folder)]
        for folder in ours:
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(NotAllowedError, match=f"give user {os.geteuid()} access"):
            FolderStore(tmp_path / "locked").probe()
        with pytest.raises(NotAllowedError, match="hidden"):
            fetch(str(tmp_path), tmp_path, retry_minutes=0)
    finally:
        os.seteuid(was)


def test_a_full_disk_is_named_with_its_free_space(tiny_disk: Path) -> None:
    with pytest.raises(JobError, match=r"No space left on device, 0\.\d MiB free") as caught:
        FolderStore(tiny_disk).write("a", bytes(1 << 20))
    assert caught.value.exit_code == 1
    assert list(tiny_disk.iterdir()) == []


def test_a_disk_that_fills_while_a_file_is_copied_to_it_is_the_one_that_is_named(
    tiny_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(bytes(1 << 20))
    with pytest.raises(JobError, match=f"{tiny_disk}/a: No space left on device"):
        FolderStore(tiny_disk).upload(tmp_path / "weights", "a")


# Publishing


def test_a_published_run_lists_every_object_and_comes_back_the_same(
    store: FolderStore, run: Path, tmp_path: Path
) -> None:
    published = publish(run, store, "id")
    assert published.is_ours
    assert json.loads(store.read("id/manifest.json") or b"") == {
        "objects": {
            "adapter/weights": {"size": 5, "sha256": HELLO},
            "report.html": {"size": 3, "sha256": sha256(b"<p>").hexdigest()},
        }
    }
    fetch_verified(store, "id", tmp_path / "back")
    assert files(tmp_path / "back") == files(run)


def test_only_a_prefix_of_a_run_is_fetched(store: FolderStore, run: Path, tmp_path: Path) -> None:
    publish(run, store, "id")
    fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
    assert files(tmp_path / "back") == {"adapter/weights": b"hello"}
    with pytest.raises(DataError, match="lists nothing below 'none/'"):
        fetch_verified(store, "id", tmp_path / "back", only_prefix="none/")


def test_a_finished_run_is_not_changed_by_publishing_again(store: FolderStore, run: Path) -> None:
    first = publish(run, store, "id")
    before = files(Path(store.uri))
    (run / "report.html").write_bytes(b"another")
    again = publish(run, store, "id")
    assert (again.is_ours, again.objects) == (False, first.objects)
    assert files(Path(store.uri)) == before


def test_an_empty_run_is_not_published(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="nothing to publish"):
        publish(tmp_path / "run", store, "id")


def test_without_a_manifest_there_is_no_finished_run(store: FolderStore, tmp_path: Path) -> None:
    store.write("id/adapter/weights", b"hello")
    assert read_manifest(store, "id") is None
    with pytest.raises(DataError, match="no finished run"):
        fetch_verified(store, "id", tmp_path / "back")


@pytest.mark.parametrize("content", [b"hallo", b"", b"longer than hello"])
def test_an_object_that_is_not_the_manifests_is_named_and_not_kept(
    store: FolderStore, run: Path, tmp_path: Path, content: bytes
) -> None:
    publish(run, store, "id")
    store.write("id/adapter/weights", content)
    with pytest.raises(JobError, match=r"id/adapter/weights: is not what its manifest\.json lists"):
        fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
    assert files(tmp_path / "back") == {}


@pytest.mark.parametrize(
    "broken",
    [b"", b"[]", b"{}", b'{"objects": []}', b'{"objects": {"a": 1}}', b"\xff", b"[" * 100_000],
)
def test_a_broken_manifest_is_a_data_error(store: FolderStore, broken: bytes) -> None:
    store.write("id/manifest.json", broken)
    with pytest.raises(DataError, match=r"manifest\.json is broken"):
        read_manifest(store, "id")


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "\ud800"])
def test_a_manifest_cannot_write_outside_of_the_folder(
    store: FolderStore, tmp_path: Path, name: str
) -> None:
    manifest = {"objects": {name: {"size": 5, "sha256": HELLO}}}
    store.write("id/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match="rename or remove it"):
        fetch_verified(store, "id", tmp_path / "deep" / "into")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    "pair",
    [("a", "A"), ("\u00e9", "e\u0301"), ("Stra\u00dfe", "STRASSE"), ("a", "a/b"), ("A", "a/b")],
)
def test_names_that_would_be_one_file_are_refused(
    store: FolderStore, tmp_path: Path, pair: tuple[str, str]
) -> None:
    manifest = {"objects": {name: {"size": 5, "sha256": HELLO} for name in pair}}
    store.write("id/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match=r"on a disk that folds|where .* is a file"):
        fetch_verified(store, "id", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_what_a_killed_writer_left_is_not_listed_and_is_removed_when_stale(
    store: FolderStore, run: Path
) -> None:
    store.write("id/.part-00", b"")
    assert store.list() == []
    os.utime(Path(store.uri) / "id" / ".part-00", (0, 0))
    publish(run, store, "id")
    assert not (Path(store.uri) / "id" / ".part-00").exists()


# Many at once


def test_the_first_failure_ends_the_rest() -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        raise DataError(str(item))

    with pytest.raises(DataError):
        in_parallel(work, range(1000))
    assert len(started) < 1000


def test_results_keep_the_order_of_the_items() -> None:
    assert in_parallel(lambda item: -item, range(100)) == [-item for item in range(100)]


# Servers that are not what they should be


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A web server that gives every request the same answer, and keeps the request's headers.

    It does not know the header `unknown`.
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
    _use(monkeypatch, f"http://localhost:{server.server_port}")
    yield reply
    server.shutdown()
    server.server_close()


def _use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", [b"<html></html>", b"<!doctype html><html><br></html>"])
def test_a_console_port_is_not_an_empty_bucket(
    answer: dict[str, Any], body: bytes, status: int
) -> None:
    answer.update(status=status, body=body, headers={"Content-Type": "text/html"})
    store = open_store("s3://data/", retry_minutes=15)
    with pytest.raises(SettingsError, match=r"answers with a web page.*set AWS_ENDPOINT_URL_S3"):
        store.list()
    with pytest.raises(SettingsError, match="answers with a web page"):
        store.probe()


@pytest.mark.parametrize("status", [301, 400])
def test_a_wrong_region_names_the_right_one(answer: dict[str, Any], status: int) -> None:
    answer.update(status=status, headers={"x-amz-bucket-region": "eu-west-1"})
    with pytest.raises(SettingsError, match="set AWS_DEFAULT_REGION to eu-west-1"):
        open_store("s3://data/", retry_minutes=15).probe()


def test_a_malformed_authorization_names_the_right_region(answer: dict[str, Any]) -> None:
    code = b"<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>"
    answer.update(status=400, body=b"<Error>" + code + b"</Error>")
    with pytest.raises(SettingsError, match=r"AuthorizationHeaderMalformed.*to eu-west-1"):
        fetch("s3://data/", Path("unused"), retry_minutes=15)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ExpiredToken", 400, NotAllowedError),
        ("RequestTimeTooSkewed", 403, NotAllowedError),
        ("NotImplemented", 501, JobError),
        ("SlowDown", 503, UnreachableError),
        ("BadDigest", 400, UnreachableError),
        ("ConcurrentModification", 409, UnreachableError),
    ],
)
def test_an_error_code_is_named_and_decides_the_type(
    answer: dict[str, Any], code: str, status: int, kind: type[JobError]
) -> None:
    answer.update(status=status, body=f"<Error><Code>{code}</Code></Error>".encode())
    with pytest.raises(JobError, match=f"s3://data/.*{code}") as caught:
        open_store("s3://data/", retry_minutes=0).list()
    assert type(caught.value) is kind


@pytest.mark.parametrize("length", [None, 10])
def test_a_body_that_ends_early_or_stalls_is_not_taken_for_the_object(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, length: int | None
) -> None:
    monkeypatch.setattr("trainer.storage.s3.store.READ_TIMEOUT_S", 0.2)
    answer.update(body=b"hello", length=length)
    with pytest.raises(UnreachableError, match=r"data/a: .*\((Truncated|ReadTimeout)Error\)"):
        open_store("s3://data/", retry_minutes=0).download(Stored("a", 10, ""), tmp_path / "a")
    assert files(tmp_path) == {}


def test_a_server_that_knows_no_conditions_still_gets_an_update(answer: dict[str, Any]) -> None:
    answer.update(unknown="If-Match", headers={"ETag": '"1"'})
    open_store("s3://data/", retry_minutes=0).update("a", lambda _: b"new")
    sent = [seen.get("If-Match") for seen in answer["seen"]]
    assert sent == [None, '"1"', None]


def test_checksums_can_be_left_out_for_old_servers(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store("s3://data/", retry_minutes=0).write("a", b"hello")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    open_store("s3://data/", retry_minutes=0).write("a", b"hello")
    sent = [any("checksum-crc" in name.lower() for name in seen) for seen in answer["seen"]]
    assert sent == [True, False]


def test_who_pays_and_the_key_stand_in_every_request_that_takes_them(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        request_options, "_agreed", request_options.Terms(requester_pays=True, kms_key="alias/ours")
    )
    (tmp_path / "up").write_bytes(b"hello")
    etag = md5(b"hello").hexdigest()
    answer.update(headers={"ETag": f'"{etag}"'})
    store = open_store("s3://data/", retry_minutes=0)
    store.upload(tmp_path / "up", "a")  # on a connection of our own
    store.write("a", b"hello")  # by boto3
    answer.update(body=b"hello")
    store.download(Stored("a", 5, etag), tmp_path / "down")
    store.read("a")
    seen = [{name.lower(): value for name, value in one.items()} for one in answer["seen"]]
    assert len(seen) == 4
    assert {one.get("x-amz-request-payer") for one in seen} == {"requester"}
    key = "x-amz-server-side-encryption-aws-kms-key-id"
    assert [one.get(key) for one in seen] == ["alias/ours"] * 2 + [None] * 2
    assert all("x-amz-request-payer" in one["authorization"] for one in seen)


def test_an_etag_under_sse_kms_is_no_digest(answer: dict[str, Any], tmp_path: Path) -> None:
    etag = md5(b"something else").hexdigest()
    answer.update(body=b"hello", headers={"ETag": etag, "x-amz-server-side-encryption": "aws:kms"})
    store = open_store("s3://data/", retry_minutes=0)
    for _ in range(2):
        assert store.download(Stored("a", 5, etag), tmp_path / "down") == HELLO
    assert len(answer["seen"]) == 3  # one more for finding out


def test_a_run_that_does_not_fit_the_disk_is_refused_before_it_is_fetched(
    store: FolderStore, run: Path, tiny_disk: Path
) -> None:
    (run / "adapter" / "weights").write_bytes(bytes(1 << 20))
    publish(run, store, "id")
    with pytest.raises(DoesNotFitError, match=r"id: 1\.0 MiB are to be fetched"):
        fetch_verified(store, "id", tiny_disk / "back")
    assert list(tiny_disk.iterdir()) == []


def test_an_endpoint_that_is_away_is_tried_until_the_time_is_over_and_keeps_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _use(monkeypatch, "http://user:pass-word@localhost:1")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(UnreachableError, match=r"http://localhost:1 .*EndpointConnectionError") as e,
    ):
        open_store("s3://data/", retry_minutes=0.02).list()
    assert "trying again in" in caplog.text
    assert "tried for 0.0" in str(e.value)
    assert "pass-word" not in caplog.text + str(e.value)
    assert e.value.__context__ is None


def test_after_a_signal_a_failure_is_not_waited_out_for_longer_than_the_grace_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = time.monotonic()
    monkeypatch.setattr("trainer.storage.retry.out_of_time", lambda: time.monotonic() > asked + 1)
    _use(monkeypatch, "http://localhost:1")
    with pytest.raises(UnreachableError):
        open_store("s3://data/", retry_minutes=15).write("a", b"hello")
    assert time.monotonic() - asked < 120


def test_an_endpoint_that_is_no_url_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, "user:pass-word@localhost")
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL_S3 is not a URL") as caught:
        open_store("s3://data/", retry_minutes=0)
    assert "pass-word" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2:80",
        "2852039166",  # the first one, as one number and as three spellings more
        "0xa9fea9fe",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[fe80::1]:9000",
        "user:pass-word@169.254.169.254",
    ],
)
def test_an_endpoint_at_a_link_local_address_is_refused(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, f"http://{host}")
    with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL_S3: .* is the link-local") as caught:
        open_store("s3://data/", retry_minutes=15)
    assert "pass-word" not in str(caught.value)


def test_a_name_for_a_link_local_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("169.254.169.254" if host == "s3.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(SettingsError, match=r"s3\.example is the link-local address 169\.254"):
        refuse_link_local("HF_ENDPOINT", "https://s3.example/path")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]/", "http://no.such.invalid/"])
def test_any_other_address_is_allowed(url: str) -> None:
    refuse_link_local("AWS_ENDPOINT_URL_S3", url)


def test_without_credentials_it_is_not_allowed(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(NotAllowedError, match=r"NoCredentialsError.*set AWS_ACCESS_KEY_ID"):
        open_store("s3://data/", retry_minutes=15).list()


def test_a_profile_that_does_not_exist_is_a_settings_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match="ProfileNotFound"):
        open_store("s3://data/", retry_minutes=15)


def test_tls_to_a_port_without_tls_fails_at_once(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint.replace("http:", "https:"))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with pytest.raises(UnreachableError, match=r"TLS with .* failed \(SSL: \w+\)"):
        open_store("s3://data/", retry_minutes=15).list()


def test_a_ca_bundle_that_is_missing_is_named(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint.replace("http:", "https:"))
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(UnreachableError, match="check AWS_CA_BUNDLE"):
        open_store("s3://data/", retry_minutes=15).list()


@pytest.mark.parametrize("uri", ["gs://data/", "s3://", "s3://Not_A_Bucket/"])
def test_any_other_uri_is_a_settings_error(uri: str) -> None:
    with pytest.raises(SettingsError, match="correct the URI"):
        open_store(uri, retry_minutes=0)
