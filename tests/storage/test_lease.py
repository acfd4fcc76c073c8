"""One process publishes at a time, and whoever lost its lease changes nothing more."""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import Interrupted, NotAllowedError
from trainer.runtime import signals
from trainer.storage import Content, FolderStore, Published, fetch_verified, lease
from trainer.storage.lease import LEASE, Lease, LeaseLostError, owner_of, publish_alone


def result(folder: Path, by: str) -> Path:
    """A folder to publish, different for each publisher."""
    folder.mkdir()
    (folder / "weights").write_text("w")
    (folder / "report").write_text(f"by {by}")
    return folder


def publish_as(tmp_path: Path, owner: str) -> Published:
    folder = result(tmp_path / owner, owner)
    return publish_alone(folder, FolderStore(tmp_path / "store"), "run", owner)


def test_a_restart_in_the_same_scratch_takes_up_its_own_lease_at_once(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    owner = owner_of(tmp_path / "scratch")
    assert owner_of(tmp_path / "scratch") == owner
    FolderStore(tmp_path / "store").write(f"run/{LEASE}", f"{owner} killed".encode())
    assert publish_as(tmp_path, owner).is_ours


@pytest.mark.parametrize("left", [b"someone-else dead", b"", b"\xff"])
def test_the_lease_of_a_dead_publisher_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    """Whatever is left of it: an empty one was waited for without end, and without a pause."""
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    FolderStore(tmp_path / "store").write(f"run/{LEASE}", left)
    assert publish_as(tmp_path, "heir").is_ours


@pytest.mark.parametrize("failure", [NotAllowedError("no"), OSError("broken"), Interrupted("now")])
def test_a_publisher_that_fails_leaves_no_lease_for_others_to_wait_for(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Content:
        raise failure

    with monkeypatch.context() as failing, pytest.raises(type(failure)):
        failing.setattr(FolderStore, "upload", fail)
        publish_as(tmp_path, "one")
    assert not (tmp_path / "store" / "run" / LEASE).exists()
    assert publish_as(tmp_path, "two").is_ours


def test_after_a_signal_the_lease_is_kept_until_nothing_is_being_sent_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: set[str] = set()
    at_release: list[set[str]] = []
    first, stopped = threading.Semaphore(1), threading.Event()
    within = lease._within

    def release(seconds: float, action: Callable[[], None]) -> None:
        stopped.set()
        within(60, action)

    class SignalledStore(FolderStore):
        def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
            under_way.add(name)
            if first.acquire(blocking=False):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            assert stopped.wait(60)
            time.sleep(0.3)  # in which the lease must not go
            content = super().upload(path, name, over=over)
            under_way.remove(name)
            return content

        def delete(self, names: Iterable[str]) -> None:
            at_release.append(under_way.copy())
            super().delete(names)

    def stop(*_: Any) -> None:
        raise signals.Stopped

    monkeypatch.setattr(lease, "_within", release)
    folder = result(tmp_path / "result", "one")
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(signals.Stopped):
            publish_alone(folder, SignalledStore(tmp_path / "store"), "run", "one")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert at_release[-1] == set()
    assert not (tmp_path / "store" / "run" / LEASE).exists()


def test_a_publisher_that_stood_still_changes_nothing_of_what_another_one_published_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0)
    published = []

    class StandingStill(FolderStore):
        def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
            content = super().upload(path, name, over=over)
            if not published:
                published.append(publish_as(tmp_path, "other"))
            return content

    monkeypatch.setattr(
        "trainer.storage.transfer._at_once", lambda _, do, files, __: [*map(do, reversed(files))]
    )
    folder = result(tmp_path / "still", "still")
    store = StandingStill(tmp_path / "store")
    found = publish_alone(folder, store, "run", "still")
    assert published[0].is_ours
    assert not found.is_ours
    fetch_verified(store, "run", tmp_path / "back")
    assert (tmp_path / "back" / "report").read_text() == "by other"


def test_a_lease_that_another_process_holds_is_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = threading.Semaphore(0)

    class Watched(FolderStore):
        def update(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
            super().update(name, change)
            looked_at.release()

    monkeypatch.setattr(lease, "RENEWED_S", 0.01)
    store = Watched(tmp_path)
    mine = Lease(store, LEASE, "mine")
    with mine.held(unless="never"):
        FolderStore(tmp_path).update(LEASE, lambda _: b"other 1")
        for _ in range(3):
            assert looked_at.acquire(timeout=60)
        assert store.read(LEASE) == b"other 1"
        with pytest.raises(LeaseLostError), mine.writing():
            pass
    assert store.read(LEASE) == b"other 1"


@pytest.mark.parametrize("left", [b"", b"ab", b"\xff" * 32, b"0" * 33])
def test_an_owner_that_a_full_disk_left_half_written_is_made_anew(
    tmp_path: Path, left: bytes
) -> None:
    """An empty one would take the lease of everybody for its own."""
    (tmp_path / "owner").write_bytes(left)
    owner = owner_of(tmp_path)
    assert len(owner) == 32
    assert owner_of(tmp_path) == owner
    FolderStore(tmp_path / "store").write(f"run/{LEASE}", b"another-pod 1")
    assert not Lease(FolderStore(tmp_path / "store"), f"run/{LEASE}", owner)._is_ours(
        b"another-pod 1"
    )
