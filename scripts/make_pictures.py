"""Renew docs/pictures: the report of `make demo` in a browser, and a run at a terminal.

    .venv/bin/python scripts/make_pictures.py [report] [terminal]

Needs chromium for the one (after `make demo`) and tmux for the other.
"""

import html
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, ROWS = 124, 20
CHARACTER, LINE, EDGE = 7.8, 18, 16  # of the drawn terminal, for a font of 13
COMMAND = "python entrypoint.py"
SETTINGS = {
    "DATA_URI": "examples/data",
    "EVAL_URI": "examples/heldout",
    "OUTPUT_URI": "results",
    "BASE_MODEL": "builtin:tiny",
    "LEARNING_RATE": "8e-3",
    "TARGET_MODULES": "all-linear",
    "EFFECTIVE_BATCH_SIZE": "4",
    "MAX_STEPS": "40",
}


def report() -> None:
    """What a browser shows of the demo's report: wide, and on a phone in the dark."""
    page = next((ROOT / "demo-output").glob("*/report.html"))
    _shoot(page, "report.png", 1180, 1240)
    _shoot(page, "report-phone.png", 500, 1240, "--blink-settings=preferredColorScheme=0")


def _shoot(page: Path, name: str, width: int, height: int, *more: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", *more]
        command += ["--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={width},{height}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        picture = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    picture.quantize(48).save(PICTURES / name, optimize=True)


def terminal() -> None:
    """A run that is stopped with Ctrl-C and started again, as tmux shows it."""
    with tempfile.TemporaryDirectory() as folder:
        socket = ["tmux", "-S", f"{folder}/socket"]
        variables = {f"QLORA_{n}": v for n, v in SETTINGS.items()}
        variables |= {"QLORA_OUTPUT_URI": f"{folder}/results", "QLORA_SCRATCH_DIR": f"{folder}/s"}
        environment = os.environ | variables | {"PS1": "$ "}
        environment["PATH"] = f"{ROOT / '.venv' / 'bin'}:{environment['PATH']}"
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        shell = ["bash", "--norc", "--noprofile"]
        started = [*socket, "new-session", "-d", *size, *shell]
        subprocess.run(started, env=environment, cwd=ROOT, check=True)
        try:
            _wait(socket, "$")
            _type(socket, COMMAND, "Enter")
            _wait(socket, " 12/40 [")
            _type(socket, "C-c")
            _wait(socket, "where it stopped\n$")
            _type(socket, COMMAND, "Enter")
            text = _wait(socket, "ask it: ", "-J")  # its lines whole, to be broken anew below
        finally:
            subprocess.run([*socket, "kill-server"], check=False)
    text = text.replace(f"{folder}/results", SETTINGS["OUTPUT_URI"])
    lines = [line[at : at + COLUMNS] for line in text.rstrip().splitlines() for at in _ends(line)]
    (PICTURES / "terminal.svg").write_text(_drawn(lines), encoding="utf-8")


def _ends(line: str) -> range:
    return range(0, max(1, len(line.rstrip())), COLUMNS)


def _type(socket: list[str], *keys: str) -> None:
    subprocess.run([*socket, "send-keys", *keys], check=True)


def _wait(socket: list[str], words: str, *how: str, timeout_s: float = 600) -> str:
    """The screen with what has scrolled off it, once it shows `words`."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        shown = [*socket, "capture-pane", "-p", "-S", "-", *how]
        text = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
        if words in text:
            return text
        time.sleep(0.05)
    raise TimeoutError(f"the terminal never showed {words!r}:\n{text}")


def _drawn(lines: list[str]) -> str:
    """The lines of a terminal as an SVG."""
    width = EDGE * 2 + CHARACTER * COLUMNS
    height = EDGE * 2 + LINE * len(lines)
    texts = "".join(
        f'<text x="{EDGE}" y="{EDGE + LINE * (number + 0.75):.0f}">{_text(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        'font-family="ui-monospace,DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="13" '
        'fill="#e6e6e9" xml:space="preserve"><rect width="100%" height="100%" rx="8" '
        f'fill="#16181d"/>{texts}</svg>\n'
    )


def _text(line: str) -> str:
    return html.escape(line).replace(" ", "&#160;")  # SVG would join spaces


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    for make in [globals()[name] for name in sys.argv[1:] or ("report", "terminal")]:
        make()
