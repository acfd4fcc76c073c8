"""One run is published once, completely, whoever else tries."""

import json
import threading
from pathlib import Path

import pytest

from trainer import publication
from trainer.errors import JobError
from trainer.publication import LATEST, LEASE, move_latest, owner_of, publish_run
from trainer.storage import FolderStore, Published, fetch_verified


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
    with pytest.raises(JobError, match="other weights"):
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
    monkeypatch.setattr(publication, "LEASE_S", 0.5)
    FolderStore(tmp_path / "store").write(f"run/{LEASE}", b"someone-else dead")
    assert publish_as(tmp_path, "heir").is_ours


def test_latest_moves_only_forward(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for run_id, finished in (("first", 10.0), ("third", 30.0), ("second", 20.0)):
        move_latest(store, run_id, finished)
    assert json.loads((tmp_path / LATEST).read_text()) == {"run_id": "third", "finished": 30.0}
