"""Workers on this machine as processes of their own, started as a launcher would."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.jobs import ROOT, adapter_bytes, start
from support.network import unused_port

Processes = list["subprocess.Popen[str]"]


# With one core for each, sums inside a matrix product have one order.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


# Enough steps that a signal comes before the last.
SETTINGS = {"BATCH_SIZE": "1", "CHECKPOINT_EVERY": "60m", "MAX_STEPS": "16"}


def start_workers(folder: Path, size: int, **changes: str) -> Processes:
    """`size` workers on this machine, as an Indexed Job would start them."""
    port = str(unused_port())
    return [
        start(
            folder,
            environment=ONE_THREAD
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)},
            **SETTINGS | changes,
        )
        for rank in range(size)
    ]


@dataclass(frozen=True)
class Ended:
    """How a worker's program ended."""

    code: int
    lines: list[str]
    errors: str


def run_program(program: str, size: int, *arguments: str) -> list[Ended]:
    """`program` in Python, by `size` workers that a launcher has started on this machine."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_port())}
    meeting |= {"WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env=os.environ | meeting | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    printed = [process.communicate(timeout=600) for process in started]
    return [
        Ended(process.returncode, out.splitlines(), errors)
        for process, (out, errors) in zip(started, printed, strict=True)
    ]


def ends(processes: Processes) -> list[int]:
    """Exit codes, once all have ended by themselves."""
    return [process.wait(timeout=600) for process in processes]


def wait_for_step(process: "subprocess.Popen[str]", step: int) -> list[str]:
    """The lines until the worker has logged `step`."""
    assert process.stdout is not None and process.stderr is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if f'"step": {step},' in line:
            return lines
    pytest.fail("".join(lines) + process.stderr.read())


def steps(lines: Iterable[str]) -> list[int]:
    return [int(n) for line in lines for n in re.findall(r'"step": (\d+),', line)]


def weights(folder: Path) -> bytes:
    (run,) = (path.parent for path in folder.glob("out/*/manifest.json"))
    return adapter_bytes(run)
