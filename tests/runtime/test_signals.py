"""Signals to real processes: some interrupt, some only set a flag, a second one ends at once."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import ROOT

from trainer.errors import Interrupted

START = """
import os, signal
from trainer.errors import Interrupted
from trainer.runtime import signals
signals.install()
def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
"""


def said_by(code: str) -> tuple[int, str]:
    """Exit code and output of a process that runs `code` with our handlers."""
    done = subprocess.run(
        [sys.executable, "-c", START + code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_a_signal_before_anything_runs_is_kept_until_it_can_be_delivered() -> None:
    code = """
send()
print("still here")
try:
    signals.deliver()
except Interrupted as error:
    print(error)
"""
    sentence = "SIGTERM stopped the run; start it again to go on where it stopped"
    assert said_by(code) == (0, f"still here\n{sentence}\n")


def test_a_delivered_signal_passes_what_catches_every_exception() -> None:
    code = """
signals.deliver()
try:
    try:
        send(signal.SIGINT)
    except Exception:
        print("swallowed")
except signals.Stopped:
    print(signals.interruption())
"""
    code, said = said_by(code)
    assert (code, said.split()[0]) == (0, "SIGINT")


def test_a_signal_during_an_import_interrupts_once_the_module_is_there(tmp_path: Path) -> None:
    """torch's extensions import from C++, which ends the process when an import raises."""
    (tmp_path / "slow.py").write_text("import time; send(); time.sleep(0.1); print('imported')")
    code = f"""
import builtins, sys, time
builtins.send = send
sys.path.insert(0, {str(tmp_path)!r})
signals.deliver()
try:
    import slow
    time.sleep(5)
except signals.Stopped:
    print(signals.interruption())
"""
    code, said = said_by(code)
    assert (code, said.split()[:2]) == (0, ["imported", "SIGTERM"])


def test_a_signal_during_an_import_that_goes_on_for_long_ends_the_process(tmp_path: Path) -> None:
    text = "import time; send()\nfor _ in range(2000): time.sleep(0.01)\nprint('imported')"
    (tmp_path / "longer.py").write_text(text)
    code = f"""
import builtins, os, sys
import trainer.runtime.last_words
os.dup2(1, 2)
builtins.send = send
sys.path.insert(0, {str(tmp_path)!r})
signals.deliver()
import longer
"""
    sentence = "stopped: SIGTERM stopped the run; start it again to go on where it stopped\n"
    assert said_by(code) == (Interrupted.exit_code, sentence)


def test_a_signal_in_a_finalizer_interrupts_a_moment_later() -> None:
    """Python drops what is raised in one; nothing is printed of it, and nothing is lost."""
    code = """
class Finalized:
    def __del__(self):
        send()
        for _ in range(100):
            pass

signals.deliver()
try:
    Finalized()
    while True:
        pass
except signals.Stopped:
    print(signals.interruption())
"""
    code, said = said_by(code)
    assert (code, said.split()[0]) == (0, "SIGTERM")


def test_other_faults_of_finalizers_are_reported_as_ever() -> None:
    code = START + "class Faulty:\n    def __del__(self):\n        1 / 0\nFaulty()\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "ZeroDivisionError" in done.stderr and done.returncode == 0


def test_a_deferred_signal_sets_a_flag_and_interrupts_at_the_end_of_the_block() -> None:
    code = """
signals.deliver()
try:
    with signals.deferred("saving"):
        print(signals.requested(), signals.seconds_left())
        send()
        print(signals.requested(), 0 < signals.seconds_left() <= signals.GRACE_S)
        print("step finished")
except Interrupted:
    print("ended")
"""
    assert said_by(code) == (0, "False inf\nTrue True\nstep finished\nended\n")


def test_a_held_signal_lets_what_remains_be_finished() -> None:
    code = "signals.deliver()\nsignals.hold()\nsend()\nprint(signals.requested())\n"
    assert said_by(code) == (0, "True\n")


@pytest.mark.parametrize("wait", ["deferred", "hold"])
def test_a_second_signal_ends_the_process_at_once(wait: str) -> None:
    waits = {
        "deferred": "block = signals.deferred('')\nblock.__enter__()",
        "hold": "signals.hold()",
    }
    code = f"signals.deliver()\n{waits[wait]}\nsend()\nsend()\nprint('not reached')\n"
    assert said_by(code) == (Interrupted.exit_code, "")
