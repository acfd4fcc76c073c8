"""Several workers train as one: the same weights, one end for all, resumable by any number."""

import signal
from pathlib import Path

import pytest
from support.jobs import start
from support.network import unused_port
from support.worker_processes import (
    ONE_THREAD,
    SETTINGS,
    ends,
    start_workers,
    steps,
    wait_for_step,
    weights,
)

from trainer.distributed.workers import Workers
from trainer.errors import SettingsError


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that one worker ends in, with dropout and a short last step of the epoch."""
    folder = tmp_path_factory.mktemp("alone")
    assert ends([start(folder, environment=ONE_THREAD, **SETTINGS)]) == [0]
    return weights(folder)


def test_two_workers_end_in_the_weights_of_one(alone: bytes, tmp_path: Path) -> None:
    """Three, with the base in parts, at the end of the next test."""
    main, second = start_workers(tmp_path, 2)
    assert ends([main, second]) == [0, 0]
    assert weights(tmp_path) == alone
    assert second.stdout.read() == ""  # the main one speaks


def test_workers_that_are_stopped_and_killed_resume_in_any_number(
    alone: bytes, tmp_path: Path
) -> None:
    """Now and then with the base sharded, which a checkpoint says nothing about."""
    workers = start_workers(tmp_path, 2, SHARDING="fsdp")
    wait_for_step(workers[0], 2)
    workers[1].send_signal(signal.SIGTERM)  # a spot node goes away
    assert ends(workers) == [33, 33]

    stopped = steps(workers[0].stdout)[-1:] or [2]

    workers = start_workers(tmp_path, 2, SHARDING="fsdp")
    lines = wait_for_step(workers[0], stopped[0] + 2)
    assert any("resuming from checkpoint step-00000" in line for line in lines)
    workers[1].kill()
    assert ends(workers) == [12, -signal.SIGKILL]
    assert "another worker ended or cannot be reached" in workers[0].stderr.read()
    killed = steps([*lines, *workers[0].stdout])[-1]

    workers = start_workers(tmp_path, 2)
    lines = wait_for_step(workers[0], killed + 1)
    assert steps(lines) == [killed + 1]  # nothing was lost: the main worker saved its last step
    workers[0].kill()
    assert ends(workers) == [-signal.SIGKILL, 12]

    assert ends(start_workers(tmp_path, 3, SHARDING="fsdp")) == [0, 0, 0]
    assert weights(tmp_path) == alone


def test_workers_of_different_runs_do_not_train_together(tmp_path: Path) -> None:
    port = str(unused_port())
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    workers = [
        start(tmp_path, environment=here | {"RANK": str(rank)}, SEED=str(rank)) for rank in (0, 1)
    ]
    assert ends(workers) == [2, 2]
    assert all("has other settings or data" in process.stderr.read() for process in workers)


def test_a_worker_that_is_never_joined_says_so(tmp_path: Path) -> None:
    lonely, other = start_workers(tmp_path, 2, STORAGE_RETRY_MINUTES="0.1")
    other.kill()
    assert ends([lonely]) == [12]
    assert "the 2 workers did not meet within 0.1 minutes" in lonely.stderr.read()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "no MASTER_PORT"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x"),
    ],
)
def test_what_a_launcher_got_wrong_is_said(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        Workers.from_environment(dict(given))


def test_each_worker_sees_its_own_gpu_and_no_library_sees_the_others() -> None:
    given = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }
    environ = given | {"CUDA_VISIBLE_DEVICES": "4,6"}
    assert Workers.from_environment(environ) == Workers(3, 4)
    assert environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert "WORLD_SIZE" not in environ
    assert Workers.from_environment({}) == Workers(0, 1)
