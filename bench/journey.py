"""The first hour of a new user, recorded: what a terminal shows, when, and where it stands still.

    python bench/journey.py SCRIPT OUTPUT [COLUMNS]

SCRIPT, such as bench/journey.tsv, has a line for each thing that is typed in tmux: `seconds to wait
at most TAB what the last line shows when it may be typed TAB keys`, with Enter behind them, or ^C.
OUTPUT gets each new line with the seconds since the start, each silence above three seconds with
what stood there and how busy the machine was, and for each thing that was typed the longest
silence: a screen that does not change.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SILENCE_S = 3.0
LOOK_EVERY_S, STANDS_S = 0.1, 0.3


class Terminal:
    """A shell in tmux with nothing set and nothing left of earlier runs."""

    def __init__(self, folder: Path, columns: int) -> None:
        self._tmux = ["tmux", "-S", str(folder / "socket")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("QLORA_", "TMUX"))}
        environment |= {"PS1": "$ ", "LANG": "C.UTF-8", "TMPDIR": str(folder)}
        size = ["-x", str(columns), "-y", "50"]
        start = [*self._tmux, "new-session", "-d", *size, "bash", "--norc", "--noprofile"]
        subprocess.run(start, env=environment, check=True)

    def shown(self) -> str:
        shown = [*self._tmux, "capture-pane", "-p", "-S", "-2000"]
        return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.rstrip()

    def type(self, keys: str) -> None:
        is_ctrl_c = keys == "^C"
        if not is_ctrl_c:
            subprocess.run([*self._tmux, "send-keys", "-l", keys], check=True)
        pressed = "C-c" if is_ctrl_c else "Enter"
        subprocess.run([*self._tmux, "send-keys", pressed], check=True)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False)


class Recording:
    """What was shown since the start, and when nothing moved."""

    def __init__(self, terminal: Terminal) -> None:
        self.lines: list[str] = []
        self.silences: dict[str, float] = {}
        self._terminal = terminal
        self._begin = self._changed = time.monotonic()
        self._text, self._typed = "", ""
        self._noted: list[str] = []

    def wait_for(self, wanted: str, most_s: float) -> None:
        """Until the screen ends with `wanted` or nearly, and nothing moves there."""
        until = time.monotonic() + most_s
        while True:
            self._look()
            now = time.monotonic()
            is_last = wanted in self._text[-len(wanted) - 3 :]
            if is_last and now - self._changed > STANDS_S:
                return
            if now > until:
                return self._note(f"== never saw {wanted!r}")
            time.sleep(LOOK_EVERY_S)

    def type(self, keys: str) -> None:
        if keys == "^C":  # no line follows that shows this one to be whole
            last = self._text.splitlines()[-1]
            self._note(f" {last}")
            self._noted.append(last)
        self._note(f">> {keys}")
        self._terminal.type(keys)
        self._typed, self._changed = keys, time.monotonic()

    def _look(self) -> None:
        now, text = time.monotonic(), self._terminal.shown()
        if text == self._text:
            return
        still = now - self._changed
        if self._typed:
            self.silences[self._typed] = max(self.silences.get(self._typed, 0.0), still)
        if self._typed and still > SILENCE_S:
            last = (self._text.splitlines() or [""])[-1]
            self._note(f"-- {still:.1f} s silent, load {os.getloadavg()[0]:.0f}: {last}")
        shown = text.splitlines()[:-1]
        for number, line in enumerate(shown):
            before = "".join(self._noted[number : number + 1])
            is_clock = " … " in line and before.partition(" … ")[0] == line.partition(" … ")[0]
            if number >= len(self._noted) or not (before == line or is_clock):
                self._note(f" {line}")  # new, or written over
        self._noted[: len(shown)] = shown
        self._text, self._changed = text, now

    def _note(self, what: str) -> None:
        self.lines.append(f"{time.monotonic() - self._begin:7.1f} {what}")


def record(script: Path, output: Path, columns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(Path(folder), columns)
        recording = Recording(terminal)
        try:
            for step in script.read_text(encoding="utf-8").splitlines():
                most_s, wanted, keys = step.split("\t")
                recording.wait_for(wanted, float(most_s))
                recording.type(keys)
                time.sleep(STANDS_S)
            recording.wait_for("$", 60)
        finally:
            terminal.close()
    table = [f"{seconds:6.1f} s  {keys}" for keys, seconds in recording.silences.items()]
    whole = "\n".join([*recording.lines, "", "longest silence after:", *table])
    output.write_text(f"{whole}\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    record(Path(sys.argv[1]), Path(sys.argv[2]), int([*sys.argv, "100"][3]))
