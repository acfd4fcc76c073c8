"""The first hour of a new user, recorded: what a terminal shows, when, and where it stands still.

    python bench/journey.py SCRIPT OUTPUT [COLUMNS]

SCRIPT has a line for each thing that is typed in tmux: `seconds to wait at most TAB text that shows
that it may be typed TAB keys`. OUTPUT gets each new line with the seconds since the start, each
silence above three seconds with what stood there and how busy the machine was, and per command the
longest silence. A silence is a screen that does not change for so long while a command runs.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SILENCE_S = 3.0
LOOK_EVERY_S = 0.1


class Terminal:
    """A shell in tmux with nothing set."""

    def __init__(self, folder: Path, columns: int) -> None:
        self._tmux = ["tmux", "-S", str(folder / "socket")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("QLORA_", "TMUX"))}
        environment |= {"PS1": "$ ", "LANG": "C.UTF-8", "QLORA_SCRATCH_DIR": str(folder / "s")}
        size = ["-x", str(columns), "-y", "50"]
        start = [*self._tmux, "new-session", "-d", *size, "bash", "--norc", "--noprofile"]
        subprocess.run(start, env=environment, check=True)

    def shown(self) -> str:
        shown = [*self._tmux, "capture-pane", "-p", "-S", "-2000"]
        return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.rstrip()

    def type(self, keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", "-l", keys], check=True)
        subprocess.run([*self._tmux, "send-keys", "Enter"], check=True)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False)


def record(script: Path, output: Path, columns: int) -> None:
    begin = time.monotonic()
    lines: list[str] = []
    silences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(Path(folder), columns)
        said, typed, seen, changed = "", "", 0, begin
        try:
            for step in script.read_text(encoding="utf-8").splitlines():
                most, wanted, keys = step.split("\t")
                until = time.monotonic() + float(most)
                from_here = len(terminal.shown())
                while True:
                    now, text = time.monotonic(), terminal.shown()
                    if text != said:
                        still, spent = now - changed, now - begin
                        if typed:
                            silences[typed] = max(silences.get(typed, 0.0), still)
                            if still > SILENCE_S:
                                last = (said.splitlines() or [""])[-1]
                                where = f"load {os.getloadavg()[0]:.0f}: {last}"
                                lines.append(f"{spent:7.1f}  -- {still:.1f} s silent, {where}")
                        new = text.splitlines()
                        lines += [f"{spent:7.1f}  {line}" for line in new[seen : len(new) - 1]]
                        seen = max(seen, len(new) - 1)
                        said, changed = text, now
                    if wanted in text[max(0, from_here - 200) :] and now - changed > 0.3:
                        break
                    if now > until:
                        lines.append(f"{now - begin:7.1f}  == never saw {wanted!r}")
                        break
                    time.sleep(LOOK_EVERY_S)
                lines.append(f"{time.monotonic() - begin:7.1f}  >> {keys}")
                terminal.type(keys)
                typed, changed = keys, time.monotonic()
            time.sleep(2)
            lines.append(terminal.shown().splitlines()[-1])
        finally:
            terminal.close()
    table = [f"{seconds:6.1f} s  {keys}" for keys, seconds in silences.items()]
    whole = "\n".join([*lines, "", "longest silence after:", *table])
    output.write_text(f"{whole}\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    record(Path(sys.argv[1]), Path(sys.argv[2]), int([*sys.argv, "100"][3]))
