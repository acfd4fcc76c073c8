"""examples/colab.ipynb, run from its first cell to its last on the built-in model."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.jobs import ROOT

NOTEBOOK = ROOT / "examples" / "colab.ipynb"
SMALL = {"BASE_MODEL": "builtin:tiny", "MAX_STEPS": "4", "MAX_LENGTH": "64"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """The notebook beside a checkout, as after its first cell."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("trainer", "examples"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "entrypoint.py", checkout)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
    environment |= {f"QLORA_{name}": value for name, value in SMALL.items()}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "QLORA_SCRATCH_DIR": str(checkout / "scratch"),
        "IPYTHONDIR": str(checkout / "ipython"),
    }
    command = [sys.executable, str(ROOT / "tests" / "support" / "run_notebook.py"), str(NOTEBOOK)]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )


def test_every_cell_runs(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training" in done.stdout + done.stderr
    assert "base   " in done.stdout
    assert "tuned  " in done.stdout


def test_what_is_taken_home_is_the_adapter(done: "subprocess.CompletedProcess[str]") -> None:
    archive = Path(next(line for line in done.stdout.splitlines() if line.endswith("adapter.zip")))
    names = set(zipfile.ZipFile(archive).namelist())
    assert {"Modelfile", "adapter.gguf", "adapter/adapter_model.safetensors"} <= names
    assert {"adapter/adapter_config.json", "adapter/tokenizer.json"} <= names


def test_the_notebook_is_kept_without_its_output() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
