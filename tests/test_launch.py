"""torchrun whose exit code is the job's."""

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
