"""Install the requirements into .venv, with a sign of life: minutes in which pip says nothing.

python scripts/set_up.py FOLDER REQUIREMENTS...
"""

import subprocess
import sys
import time
from pathlib import Path


def set_up(folder: Path, requirements: list[str]) -> int:
    """The exit code of venv or pip."""
    begin = time.monotonic()
    files = [part for name in requirements for part in ("-r", name)]
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    code = _run([sys.executable, "-m", "venv", str(folder)], folder, begin)
    return code or _run([*pip, "install", "--quiet", *files], folder, begin)


def _run(command: list[str], folder: Path, begin: float) -> int:
    before = _packages(folder)
    running = subprocess.Popen(command)
    on_terminal = sys.stdout.isatty()
    while running.poll() is None:
        found = _packages(folder) - before
        doing = f"{found} packages so far" if found > 0 else "downloading"
        if command[2] == "venv":
            doing = "making it"
        seconds = int(time.monotonic() - begin)
        if on_terminal:
            print(f"\rsetting up {folder}: {doing}, {seconds // 60}:{seconds % 60:02} ", end="")
        elif seconds % 30 == 0:
            print(f"setting up {folder}: {doing}, {seconds} s")
        sys.stdout.flush()
        time.sleep(1)
    if on_terminal:
        print()
    return running.returncode


def _packages(folder: Path) -> int:
    return len(list(folder.glob("lib/python*/site-packages/*.dist-info")))


if __name__ == "__main__":
    sys.exit(set_up(Path(sys.argv[1]), sys.argv[2:]))
