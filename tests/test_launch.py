"""torchrun whose exit code is the job's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import ROOT
from support.network import unused_port


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


def test_no_gpu_where_all_are_asked_for_is_a_sentence() -> None:
    command = [sys.executable, "-m", "trainer.launch", "--nproc-per-node=gpu", "entrypoint.py"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: torchrun: Cuda is not available.")
    assert "Traceback" not in done.stderr
