"""Several workers train as one: the same weights, one end for all, resumable by any number."""

import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from support.jobs import ROOT, start
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

from trainer.distributed.data_parallel import MicroBatchSampler
from trainer.distributed.workers import Workers
from trainer.errors import SettingsError


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that one worker ends in, with dropout and a short last step of the epoch."""
    folder = tmp_path_factory.mktemp("alone")
    assert ends([start(folder, environment=ONE_THREAD, **SETTINGS)]) == [0]
    return weights(folder)


@pytest.mark.parametrize(("size", "sharding"), [(2, "auto"), (4, "fsdp")])
def test_any_number_of_workers_ends_in_the_weights_of_one(
    size: int, sharding: str, alone: bytes, tmp_path: Path
) -> None:
    workers = start_workers(tmp_path, size, SHARDING=sharding)
    assert ends(workers) == [0] * size
    assert weights(tmp_path) == alone
    assert [process.stdout.read() for process in workers[1:]] == [""] * (size - 1)  # one speaks


def test_workers_that_are_stopped_and_killed_resume_in_any_number(
    alone: bytes, tmp_path: Path
) -> None:
    """Now and then with the base in parts, which a checkpoint says nothing about."""
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
    assert steps(lines) == [killed + 1]  # nothing was lost: the first worker saved its last step
    workers[0].kill()
    assert ends(workers) == [-signal.SIGKILL, 12]

    assert ends(start_workers(tmp_path, 3, SHARDING="fsdp")) == [0, 0, 0]
    assert weights(tmp_path) == alone


# The second of two ends as it is told; the first prints whether its lifeline broke.
NEIGHBOUR = """
import os, sys, time
import torch.distributed as dist
from trainer.distributed import peer_watchdog

dist.init_process_group("gloo")
line = peer_watchdog.Lifeline(dist.get_rank(), 2)
if dist.get_rank() == 0:
    line._thread.join(timeout=120)
    print(line.broken)
elif sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
else:
    line.let_go(getattr(peer_watchdog, sys.argv[1]))
    line._said.wait()
"""


@pytest.mark.parametrize(("end", "breaks"), [("killed", True), ("FAILED", True), ("DONE", False)])
def test_a_thread_notices_that_a_worker_is_lost_whatever_the_others_do(
    end: str, breaks: bool
) -> None:
    """What it does about it then needs two GPUs: test_cuda.py."""
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_port()), "WORLD_SIZE": "2"}
    first, _ = (
        subprocess.Popen(
            [sys.executable, "-c", NEIGHBOUR, end],
            cwd=ROOT,
            env=os.environ | told | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    )
    assert first.communicate(timeout=300)[0] == f"{breaks}\n"


def test_one_worker_s_failure_is_that_of_all(tmp_path: Path) -> None:
    first, second = start_workers(tmp_path, 2, EFFECTIVE_BATCH_SIZE="1")
    assert ends([first, second]) == [2, 2]
    fault = "QLORA_EFFECTIVE_BATCH_SIZE=1 in micro-batches of 1 is too little for 2 workers"
    assert fault in first.stderr.read() and fault in second.stderr.read()


def test_workers_of_different_runs_do_not_train_together(tmp_path: Path) -> None:
    port = str(unused_port())
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    workers = [
        start(tmp_path, environment=here | {"RANK": str(rank)}, SEED=str(rank)) for rank in (0, 1)
    ]
    assert ends(workers) == [2, 2]
    said = [process.stderr.read() for process in workers]
    assert all("has other settings or data" in text for text in said)


def test_a_worker_that_is_never_joined_says_so(tmp_path: Path) -> None:
    lonely, other = start_workers(tmp_path, 2, STORAGE_RETRY_MINUTES="0.1")
    other.kill()
    assert ends([lonely]) == [12]
    assert "the 2 workers did not meet within 0.1 minutes" in lonely.stderr.read()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("blocks", "effective", "micro_batch"), [(18, 4, 1), (7, 8, 2), (33, 6, 1)]
)
def test_shares_are_disjoint_complete_and_equally_many(
    blocks: int, effective: int, micro_batch: int, size: int
) -> None:
    def drawn(rank: int, size: int) -> tuple[list[list[int]], int]:
        share = MicroBatchSampler(
            blocks,
            effective=effective,
            micro_batch=micro_batch,
            seed=1,
            workers=Workers(rank, size),
        )
        share.set_epoch(3)
        parts = list(share)
        assert len(parts) == len(share)
        return parts, share.per_step

    shares = [drawn(rank, size) for rank in range(size)]
    assert len({len(parts) for parts, _ in shares}) == 1
    assert sorted(chain(*(chain(*parts) for parts, _ in shares))) == list(range(blocks))
    step = [chain(*parts[:per_step]) for parts, per_step in shares]
    alone, per_step = drawn(0, 1)
    assert sorted(chain(*step)) == sorted(chain(*alone[:per_step]))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "no MASTER_PORT"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x"),
    ],
)
def test_what_a_launcher_got_wrong_is_said(said: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        Workers.of(dict(said))


def test_each_worker_sees_its_own_gpu_and_no_library_sees_the_others() -> None:
    said = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }
    environ = said | {"CUDA_VISIBLE_DEVICES": "4,6"}
    assert Workers.of(environ) == Workers(3, 4)
    assert environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert "WORLD_SIZE" not in environ
    assert Workers.of({}) == Workers(0, 1)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import os, sys; sys.exit(13 if os.environ['RANK'] == '1' else 0)", 13),
        ("import os; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_launcher_ends_with_the_code_of_the_worker_that_failed(
    program: str, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(program)
    command = [sys.executable, "-m", "trainer.launch", "--nproc-per-node=2"]
    command += [f"--master-port={unused_port()}", str(script)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == code
