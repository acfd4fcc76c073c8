"""A folder is a store: what it lists, and what cannot leave it."""

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from support.folders import HOSTILE_NAMES, files_in

from trainer.errors import DataError, NotAllowedError, SettingsError
from trainer.storage import FolderStore, Stored, fetch, files, publish
from trainer.storage.store import OvertakenError

HELLO = sha256(b"hello").hexdigest()


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
    assert files_in(tmp_path / "into") == {}


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
    assert files_in(Path(store.uri)) == {"a": b"1"}


def test_of_many_updates_none_undoes_another(store: FolderStore) -> None:
    def add(there: bytes | None) -> bytes:
        return (there or b"") + b"."

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.update("a", add), range(50)))
    assert files_in(Path(store.uri)) == {"a": b"." * 50}
    store.update("a", lambda _: None)
    assert store.read("a") == b"." * 50


def test_an_update_goes_on_where_there_are_no_locks_or_their_holder_is_frozen(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_S", 0.1)
    with files.locked(Path(store.uri, "a")):
        store.update("a", lambda _: b"late")
    assert store.read("a") == b"late"

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    store.update("a", lambda _: b"unlocked")
    assert files_in(Path(store.uri)) == {"a": b"unlocked"}


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


def test_a_start_that_comes_to_nothing_leaves_no_folder_but_those_that_were_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "mine" / "new" / "results"):
        store = FolderStore(folder)
        store.probe()
        store.update("latest.json", lambda there: there)
        store.write("id/fingerprint.json", b"")
        store.delete(["id/fingerprint.json"])
        assert list((tmp_path / "mine").iterdir()) == []


def test_workers_that_start_at_once_in_a_folder_that_is_not_there_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    stores = [FolderStore(tmp_path / "new" / "results") for _ in range(4)]

    def start(number: int) -> None:
        store = stores[number]
        for _ in range(40):
            store.probe()
            store.update("latest.json", lambda there: there)
            assert store.write(f"{number}/a", b"", only_if_absent=True)
            store.delete([f"{number}/a"])

    with ThreadPoolExecutor() as workers:
        assert list(workers.map(start, range(4))) == [None] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_output_folder_should_be_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="a file and a folder cannot share a name"):
        FolderStore(tmp_path / "file").probe()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
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
    assert files_in(tmp_path / "outside") == {}


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


def test_what_a_killed_writer_left_is_not_listed_and_is_removed_when_stale(
    store: FolderStore, run: Path
) -> None:
    store.write("id/.part-00", b"")
    assert store.list() == []
    os.utime(Path(store.uri) / "id" / ".part-00", (0, 0))
    publish(run, store, "id")
    assert not (Path(store.uri) / "id" / ".part-00").exists()


def test_folders_nested_too_deep_are_named(tmp_path: Path) -> None:
    made = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # the path is longer than a call may be given
        os.mkdir("d", dir_fd=made)
        inner = os.open("d", os.O_RDONLY, dir_fd=made)
        os.close(made)
        made = inner
    os.close(made)
    try:
        with pytest.raises(DataError, match="its folders are nested too deep"):
            FolderStore(tmp_path).list()
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


_LATE: list[Callable[[], None]] = []  # what happens just before the next file gets its name


def _interfere(event: str, _: tuple[object, ...]) -> None:
    if event in ("os.link", "os.rename") and _LATE:
        _LATE.pop()()


def test_what_another_one_writes_in_the_last_moment_is_not_written_over(tmp_path: Path) -> None:
    """As a process does that was frozen there."""
    (tmp_path / "ours").write_bytes(b"ours")
    store = FolderStore(tmp_path / "out")
    sys.addaudithook(_interfere)  # for good

    def other() -> None:
        _LATE.append(lambda: (tmp_path / "out" / "a").write_bytes(b"theirs") and None)

    _LATE.append(other)  # the first name is that of what is not yet whole
    with pytest.raises(OvertakenError):
        store.upload(tmp_path / "ours", "a", over="")
    assert not _LATE
    assert store.read("a") == b"theirs"
    assert [stored.name for stored in store.list()] == ["a"]
