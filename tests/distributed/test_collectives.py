"""Collectives of three workers, and of one, which needs nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.jobs import ROOT
from support.network import unused_port
from support.worker_processes import ends, run_program

from trainer.distributed.collectives import ProcessGroup

# Each worker prints what it was given by all of them.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
import torch
from trainer.distributed.workers import Workers
from trainer.errors import DataError

workers = Workers.from_environment(os.environ)
rank, folder = workers.rank, Path(sys.argv[1])
with workers.session("a run", minutes=2):
    tensors = [torch.full((2,), float(rank)), torch.tensor(1.0)]
    workers.all_reduce_tensors(tensors)
    given = folder / "given" if workers.is_main else None
    broadcast = workers.broadcast_folder(given, folder / f"copy-{rank}")
    refused = ""
    try:
        given = folder / "odd" if workers.is_main else None
        workers.broadcast_folder(given, folder / f"odd-{rank}")
    except DataError as error:
        refused = str(error)
    began = time.monotonic()
    with workers.exit_barrier(60):
        time.sleep(rank)
    waited = time.monotonic() - began
    found = {
        "sum": workers.all_reduce_sum(rank, 0.5),
        "min": workers.all_reduce_min(rank + 1, -rank),
        "tensors": [tensor.tolist() for tensor in tensors],
        "int": workers.broadcast_int(rank + 7),
        "bytes": workers.broadcast_bytes(b"main" if workers.is_main else b"").decode(),
        "no bytes": workers.broadcast_bytes(b"").decode(),
        "folder": {path.name: path.read_text() for path in broadcast.iterdir()},
        "no folder": workers.broadcast_folder(None, folder / "nothing"),
        "a name that is no path": "control character" in refused,
        "waited": waited >= 1.9,
    }
    if workers.is_main:
        workers.set_flag("ready")
    else:
        workers.wait_for_flag("ready")
    print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three workers printed."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "given").mkdir()
    for name, text in (("one", "1"), ("empty", ""), ("two", "2" * 1000)):
        (folder / "given" / name).write_text(text)
    (folder / "odd").mkdir()
    (folder / "odd" / "a\nb").touch()
    ended = run_program(PROGRAM, 3, str(folder))
    assert [worker.code for worker in ended] == [0, 0, 0], [worker.errors for worker in ended]
    return [json.loads(worker.lines[0]) for worker in ended]


@pytest.mark.parametrize(
    ("collective", "expected"),
    [
        ("sum", [3, 1.5]),
        ("min", [1, -2]),
        ("tensors", [[3.0, 3.0], 3.0]),
        ("int", 7),
        ("bytes", "main"),
        ("no bytes", ""),
        ("folder", {"one": "1", "empty": "", "two": "2" * 1000}),
        ("no folder", None),
        ("a name that is no path", True),
        ("waited", True),
    ],
)
def test_every_worker_has_the_same(
    found: list[dict[str, Any]], collective: str, expected: Any
) -> None:
    assert [worker[collective] for worker in found] == [expected] * 3


def test_one_alone_has_what_it_gave(tmp_path: Path) -> None:
    alone = ProcessGroup()
    tensors = [torch.ones(2)]
    alone.all_reduce_tensors(tensors)
    assert tensors[0].tolist() == [1.0, 1.0]
    assert alone.all_reduce_sum(1, 0.5) == [1, 0.5]
    assert alone.all_reduce_min(3) == [3]
    assert alone.broadcast_bytes(b"x") == b"x"
    assert alone.broadcast_folder(tmp_path, tmp_path / "copy") == tmp_path
    with alone.exit_barrier(0):
        pass


# The patience of a worker is a second. The second one is three seconds late, and then too late.
LATE = """
import os, sys, time
from pathlib import Path
from trainer.errors import UnreachableError
from trainer.distributed.workers import Workers
workers, go = Workers.from_environment(os.environ), Path(sys.argv[1])
try:
    with workers.session("a run", minutes=5):
        workers._timeout_s = 1
        with workers.exit_barrier(600):
            time.sleep(0 if workers.is_main else 3)
        print("through", flush=True)
        try:
            with workers.exit_barrier(0):
                while not workers.is_main and not go.exists():
                    time.sleep(0.1)
        finally:
            go.touch()
except UnreachableError as error:
    print(error, flush=True)
"""


def test_who_is_late_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    port = str(unused_port())
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    first, late = (
        subprocess.Popen(
            [sys.executable, "-c", LATE, str(tmp_path / "go")],
            cwd=ROOT,
            env=os.environ | here | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    )
    assert ends([first, late]) == [0, 0], late.stderr.read()
    through, why = first.stdout.read().splitlines()
    assert through == "through" and "another worker ended or cannot be reached" in why
