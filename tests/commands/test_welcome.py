"""Who is welcomed, and that it does not wait for libraries."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.jobs import ROOT


@pytest.mark.parametrize("words", [[], ["--seed", "1"]])
def test_only_who_has_set_nothing_at_a_terminal_is_welcomed(
    words: list[str], tmp_path: Path
) -> None:
    main, end = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "entrypoint.py"), *words],
        cwd=tmp_path,
        env=clean,
        stdin=end,
        stdout=end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(end)
    guard = threading.Timer(60, process.kill)
    guard.start()
    os.write(main, b"n\n")
    error = process.communicate()[1]
    guard.cancel()
    said = os.read(main, 10_000).decode() if not words else ""
    os.close(main)
    assert process.returncode == 2
    assert "QLORA_DATA_URI is required" in error and "QLORA_OUTPUT_URI is required" in error
    if not words:
        assert len(said.splitlines()) <= 12 and "entrypoint.py:" in said and "  init " in said


def test_nothing_heavy_is_imported_before_the_first_question() -> None:
    program = "import sys; import trainer.cli, trainer.commands.welcome; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert not {"torch", "numpy", "transformers"} & set(done.stdout.split())
