"""What a person sees: a bar that redraws on a terminal, and Ctrl-C that ends in a checkpoint."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

from support.jobs import ROOT, only_run, variables

from trainer.evaluation.verdict import is_verdict

CTRL_C = b"\x03"


class Terminal:
    """The command on a pseudo-terminal of its own, as a shell would start it."""

    def __init__(self, folder: Path, columns: int = 110, **changes: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
        environment |= {"COLUMNS": "60"}  # another terminal's, which counts for nothing here
        environment |= variables(folder, LOG_FORMAT="auto", **changes)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            size = struct.pack("HHHH", 30, columns, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.execve(sys.executable, [sys.executable, "entrypoint.py"], environment)
        self.seen = ""

    def read(self, until: str | None = None, timeout_s: float = 300) -> str:
        """Everything so far, once it matches `until` or the command has ended."""
        end = time.monotonic() + timeout_s
        while until is None or not re.search(until, self.seen):
            assert time.monotonic() < end, self.seen
            if not select.select([self.fd], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(self.fd, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
            if not piece:
                break
            self.seen += piece.decode(errors="replace")
        return self.seen

    def press(self, key: bytes) -> None:
        os.write(self.fd, key)

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_bar_redraws_in_place_and_lines_stay_whole(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    seen = terminal.read()
    assert terminal.exit_code() == 0, seen
    drawn = re.findall(r"\rtraining +(\d+)% \|", seen)
    assert len(drawn) >= 4
    assert [int(share) for share in drawn] == sorted(int(share) for share in drawn)
    figures = r"loss \d\.\d+, [\d,]+ tokens/s"
    ended = re.findall(r"6/6 \[[^]]*\]", seen)
    assert any(re.fullmatch(rf"6/6 \[\d\d:\d\d < 00:00, {figures}\]", e) for e in ended), ended
    whole = seen.replace("\r\n", "\n").replace("\n" + " " * 10, " ")  # lines that were broken
    lines = [line.rpartition("\r")[2] for line in whole.split("\n")]
    saved = [line for line in lines if "saved" in line]
    assert saved
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d  checkpoint of step \d saved", s) for s in saved)
    trained = r"loss on trained data \d\.\d+ before, \d\.\d+ after"  # nothing is held out
    assert any(re.search(trained, line) for line in lines)
    reached, report, lead_on = (line.partition("  ")[2] for line in lines[-4:-1])
    assert is_verdict(reached.removeprefix("published, but "))
    run = only_run(tmp_path)
    assert report == f"report: {run}/report.html"
    assert re.fullmatch(rf"ask it: \S*python\S* entrypoint.py ask --adapter {run}", lead_on)
    assert not re.search(r'^\{"', seen, re.MULTILINE)


def test_ctrl_c_saves_a_checkpoint_and_ends_with_a_sentence(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, MAX_STEPS="500", CHECKPOINT_EVERY="60m")
    terminal.read(until=r"[3-9]/500 \[")
    terminal.press(CTRL_C)
    seen = terminal.read().replace("\r\n", "\n")
    assert terminal.exit_code() == 33
    assert "saving a checkpoint at the end of this step" in seen
    last = "stopped: SIGINT stopped the run; start it again to go on where it stopped\n"
    assert seen.endswith(last)
    (step,) = re.findall(r"checkpoint of step (\d+) saved", seen)
    assert (next((tmp_path / "out").iterdir()) / f"checkpoints/step-{int(step):06d}").is_dir()
    assert "Traceback" not in seen
