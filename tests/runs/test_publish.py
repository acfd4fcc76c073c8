"""One run is published once, completely, whoever else tries."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.jobs import ROOT

from trainer.errors import Interrupted, RejectedError
from trainer.runs.layout import LATEST
from trainer.runs.publish import move_latest, publish_run, reject_run
from trainer.runtime import signals
from trainer.storage import Content, FolderStore, Published, fetch_verified
from trainer.storage.lease import LEASE


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


@pytest.mark.parametrize("rejects", [False, True])
def test_what_holds_a_secret_is_not_sent_anywhere(
    tmp_path: Path, rejects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCanaryCanary")
    folder, store = result(tmp_path / "run", "w", "by one"), FolderStore(tmp_path / "store")
    (folder / "tokenizer.json").write_text('{"vocab": {"hf_canaryCanaryCanary": 1}}')
    with pytest.raises(RejectedError, match=r"tokenizer\.json holds a secret of this machine"):
        if rejects:
            reject_run(folder, store, "run", ["a fault"])
        else:
            publish_run(folder, store, "run", owner="one", weights="weights")
    assert not (tmp_path / "store").exists()
