"""One run is published once, completely, whoever else tries."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from support.jobs import ROOT

from trainer.errors import Interrupted, NotAllowedError, RejectedError
from trainer.runs.layout import LATEST
from trainer.runs.publish import move_latest, publish_run
from trainer.runtime import signals
from trainer.storage import Content, FolderStore, Published, fetch_verified, lease
from trainer.storage.lease import LEASE, Lease, LostError, owner_of


def result(folder: Path, weights: str, report: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(weights)
    (folder / "report").write_text(report)
    return folder


def publish_as(tmp_path: Path, owner: str, weights: str = "w") -> Published:
    folder = result(tmp_path / owner, weights, f"by {owner}")
    store = FolderStore(tmp_path / "store")
    return publish_run(folder, store, "run", owner=owner, weights="weights")


def test_of_two_at_once_one_wins_and_nothing_mixes(tmp_path: Path) -> None:
    won: dict[str, bool] = {}

    def work(owner: str) -> None:
        won[owner] = publish_as(tmp_path, owner).is_ours

    racers = [threading.Thread(target=work, args=(owner,)) for owner in ("one", "two", "three")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    (winner,) = [owner for owner, is_ours in won.items() if is_ours]
    fetch_verified(FolderStore(tmp_path / "store"), "run", tmp_path / "back")
    assert (tmp_path / "back" / "report").read_text() == f"by {winner}"
    assert not (tmp_path / "store" / "run" / LEASE).exists()


def test_other_weights_under_the_same_id_fail_and_leave_the_first(tmp_path: Path) -> None:
    publish_as(tmp_path, "one", weights="first")
    with pytest.raises(RejectedError, match="other weights"):
        publish_as(tmp_path, "two", weights="second")
    assert (tmp_path / "store" / "run" / "weights").read_text() == "first"


def test_a_restart_in_the_same_scratch_takes_up_its_own_lease_at_once(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    owner = owner_of(tmp_path / "scratch")
    assert owner_of(tmp_path / "scratch") == owner
    FolderStore(tmp_path / "store").write(f"run/{LEASE}", f"{owner} killed".encode())
    assert publish_as(tmp_path, owner).is_ours


def test_the_lease_of_a_dead_publisher_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    FolderStore(tmp_path / "store").write(f"run/{LEASE}", b"someone-else dead")
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
    folder = result(tmp_path / "result", "w", "r")
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(signals.Stopped):
            publish_run(
                folder, SignalledStore(tmp_path / "store"), "run", owner="one", weights="weights"
            )
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
        "trainer.storage.transfer._at_once", lambda do, files: [*map(do, reversed(files))]
    )
    folder = result(tmp_path / "still", "w", "by still")
    store = StandingStill(tmp_path / "store")
    found = publish_run(folder, store, "run", owner="still", weights="weights")
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
        with pytest.raises(LostError), mine.writing():
            pass
    assert store.read(LEASE) == b"other 1"


def test_a_signal_during_the_uploads_publishes_nothing_and_a_later_one_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SignalledStore(FolderStore):
        def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
            monkeypatch.setattr(signals, "_requested", signal.SIGTERM)
            return super().upload(path, name, over=over)

        def write(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
            if name == "late/manifest.json":
                signal.raise_signal(signal.SIGTERM)
            return super().write(name, data, only_if_absent=only_if_absent)

    store = SignalledStore(tmp_path / "store")
    folder = result(tmp_path / "result", "w", "r")
    monkeypatch.setattr(signals, "_requested", None)
    with pytest.raises(Interrupted):
        publish_run(folder, store, "run", owner="one", weights="weights")
    assert not (tmp_path / "store" / "run" / "manifest.json").exists()

    monkeypatch.setattr(SignalledStore, "upload", FolderStore.upload)
    monkeypatch.setattr(signals, "_requested", None)
    monkeypatch.setattr(signals, "_deferring", False)
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signals._handle)
    try:
        assert publish_run(folder, store, "late", owner="one", weights="weights").is_ours
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signals.requested()


def test_latest_moves_only_forward(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for run_id, finished in (("first", 10.0), ("third", 30.0), ("second", 20.0)):
        move_latest(store, run_id, finished)
    assert json.loads((tmp_path / LATEST).read_text()) == {"run_id": "third", "finished": 30.0}


def test_a_broken_latest_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / LATEST).write_text('{"run_id": "cut')
    move_latest(FolderStore(tmp_path), "next", 10.0)
    assert json.loads((tmp_path / LATEST).read_text())["run_id"] == "next"


MOVE = """
import sys, time
from trainer.runs.publish import move_latest
from trainer.storage import open_store
uri, begin, process = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
store = open_store(uri, retry_minutes=1)
store.read("latest.json")
time.sleep(max(0.0, begin - time.time()))
for turn in range(5):
    move_latest(store, f"run-{process}", turn * 10.0 + process)
"""


def race_for_latest(uri: str) -> None:
    """Four processes, each five times, in an order that nobody controls."""
    begin = str(time.time() + 2)
    racers = [
        subprocess.Popen([sys.executable, "-c", MOVE, uri, begin, str(process)], cwd=ROOT)
        for process in range(1, 5)
    ]
    assert [racer.wait(60) for racer in racers] == [0, 0, 0, 0]


def test_of_runs_that_finish_together_latest_names_the_newest(tmp_path: Path) -> None:
    race_for_latest(str(tmp_path))
    (only,) = tmp_path.iterdir()
    assert json.loads(only.read_text()) == {"run_id": "run-4", "finished": 44.0}


@pytest.mark.s3
def test_of_runs_that_finish_together_latest_in_a_bucket_names_the_newest(bucket: Any) -> None:
    race_for_latest(f"s3://{bucket.name}/models/")
    latest = json.loads(bucket.Object("models/" + LATEST).get()["Body"].read())
    assert latest == {"run_id": "run-4", "finished": 44.0}
