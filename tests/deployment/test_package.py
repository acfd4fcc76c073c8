"""`pip install`: what is built holds every file, and starts as the container does."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.jobs import ROOT


def without_bytecode(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder.parent)) for path in files}


def test_a_wheel_holds_every_file_and_pins_what_the_requirements_pin(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    no_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "trainer", source / "trainer", ignore=no_bytecode)
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    shutil.copy(ROOT / "requirements-tracking.txt", source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    assert names == without_bytecode(source / "trainer")
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = {line for line in lines if "==" in line}
    assert pins == {
        line.removeprefix("Requires-Dist: ")
        for line in text.splitlines()
        if line.startswith("Requires-Dist: ") and "extra" not in line
    }


@pytest.mark.parametrize("start", [["entrypoint.py"], ["-m", "trainer"], ["-m", "trainer.cli"]])
def test_every_way_to_start_is_the_same_command(start: list[str]) -> None:
    command = [sys.executable, *start, "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("qlora-job, version "), done.stderr
