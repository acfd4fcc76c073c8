"""Checkpoints reach the store whole, newest last, and what newer ones replace goes."""

import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from support.checkpoints import damage, fill, open_checkpoints

from trainer.errors import JobError, UnreachableError
from trainer.runs.checkpoints import Checkpoints
from trainer.runtime import signals
from trainer.storage import Content, FolderStore, fetch_verified


def test_a_local_one_that_was_never_pushed_is_pushed_by_the_next_start(saved: Path) -> None:
    shutil.rmtree(saved / "store")
    checkpoints = open_checkpoints(saved)
    checkpoints.newest()
    checkpoints.finish()
    assert (saved / "store" / "run" / "checkpoints" / "step-000020" / "manifest.json").exists()


def test_a_slow_store_gets_the_newest_and_misses_only_what_was_retired(tmp_path: Path) -> None:
    saved_all = threading.Event()

    class SlowStore(FolderStore):
        def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
            saved_all.wait(60)
            return super().upload(path, name, over=over)

    store = SlowStore(tmp_path / "store")
    checkpoints = Checkpoints(tmp_path / "node", store, "run/checkpoints", "mine", "node")
    for step in (10, 20, 30, 40):
        checkpoints.save(step, fill(step))
    saved_all.set()
    checkpoints.finish()
    pushed = sorted(p.name for p in (tmp_path / "store" / "run" / "checkpoints").iterdir())
    assert pushed == ["step-000030", "step-000040"]


def test_of_two_that_push_the_same_step_one_does_and_nothing_mixes(
    tmp_path: Path,
) -> None:
    """Their rows hold seconds, so that no two write the same bytes."""
    looked = threading.Event()
    begun = threading.Semaphore(1)

    class Second(FolderStore):
        def write(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
            written = super().write(name, data, only_if_absent=only_if_absent)
            if not written or name.endswith("manifest.json"):  # it waits, or it has pushed
                looked.set()
            return written

    class First(FolderStore):
        def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
            content = super().upload(path, name, over=over)
            if begun.acquire(blocking=False):
                second.save(10, fill(11))
                assert looked.wait(60)
            return content

    place = tmp_path / "store", "run/checkpoints"
    second = Checkpoints(tmp_path / "2", Second(place[0]), place[1], "mine", "second")
    first = Checkpoints(tmp_path / "1", First(place[0]), place[1], "mine", "first")
    first.save(10, fill(10))
    first.finish()
    second.finish()
    fetch_verified(FolderStore(place[0]), "run/checkpoints/step-000010", tmp_path / "back")
    assert (tmp_path / "back" / "state.json").read_text() == '{"step": 10}'


def test_a_push_that_failed_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store's folder should be")
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(10, fill(10))
    with pytest.raises(JobError):
        checkpoints.finish()
    assert (tmp_path / "node" / "step-000010" / "manifest.json").exists()


def test_after_a_signal_a_store_that_hangs_is_waited_for_no_longer_than_the_grace_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    class HangingStore(FolderStore):
        def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
            monkeypatch.setattr(signals, "_requested", signal.SIGTERM)
            monkeypatch.setattr(signals, "_requested_at", time.monotonic())
            answers.wait(60)
            return super().upload(path, name, over=over)

    monkeypatch.setattr(signals, "_requested", None)
    monkeypatch.setattr(signals, "GRACE_S", 0.5)
    store = HangingStore(tmp_path / "store")
    checkpoints = Checkpoints(tmp_path / "node", store, "run/checkpoints", "mine", "node")
    saved = checkpoints.save(10, fill(10))
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="no answer within the grace period"):
        checkpoints.finish()
    answers.set()
    assert time.monotonic() - started < 30  # half of what the store takes
    assert (saved / "manifest.json").exists()


def test_what_was_trained_while_the_store_was_gone_is_kept_and_pushed_by_the_next_start(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    store.write_text("a file where the store's folder should be")
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(10, fill(10))
    with pytest.raises(JobError):
        checkpoints.finish()
    with pytest.raises(JobError):
        checkpoints.save(20, fill(20))
    store.unlink()
    restarted = open_checkpoints(tmp_path)
    assert restarted.newest() == tmp_path / "node" / "step-000020"
    restarted.finish()
    assert (store / "run" / "checkpoints" / "step-000020" / "manifest.json").exists()


@pytest.mark.parametrize("how", ["missing", "empty", "half"])
@pytest.mark.parametrize("file", ["adapter.safetensors", "manifest.json"])
def test_one_that_lacks_an_object_is_not_counted_among_the_two_that_are_kept(
    file: str, how: str, saved: Path
) -> None:
    shutil.rmtree(saved / "node")
    damage(saved / "store" / "run" / "checkpoints" / "step-000020" / file, how)
    checkpoints = open_checkpoints(saved)
    checkpoints.save(30, fill(30))
    checkpoints.finish()
    shutil.rmtree(saved / "node")
    shutil.rmtree(saved / "store" / "run" / "checkpoints" / "step-000030")
    assert open_checkpoints(saved).newest() == saved / "node" / "step-000010"


def test_what_a_killed_push_or_retirement_left_is_retired_too(saved: Path) -> None:
    kept = saved / "store" / "run" / "checkpoints"
    (kept / "step-000010" / "manifest.json").unlink()
    checkpoints = open_checkpoints(saved)
    checkpoints.save(30, fill(30))
    checkpoints.finish()
    assert sorted(path.name for path in kept.iterdir()) == ["step-000020", "step-000030"]


@pytest.mark.parametrize("how", ["missing", "half"])
def test_a_stored_one_that_lacks_an_object_is_pushed_again_from_disk(saved: Path, how: str) -> None:
    damage(saved / "store" / "run" / "checkpoints" / "step-000020" / "state.json", how)
    checkpoints = open_checkpoints(saved)
    checkpoints.newest()
    checkpoints.finish()
    assert open_checkpoints(saved, "fresh").newest() == saved / "fresh" / "step-000020"
