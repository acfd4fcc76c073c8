"""Killed at some instant and started again, a run ends in the same bytes as an undisturbed one."""

import contextlib
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.jobs import (
    STEPS,
    adapter_bytes,
    only_run,
    run_command,
    run_here,
    start,
    wait_for,
    wait_for_step,
    write_records,
)

from trainer.errors import Interrupted


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return adapter_bytes(run_here(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize(
    ("number", "next_node"), [(signal.SIGTERM, "scratch"), (signal.SIGINT, "a fresh one")]
)
def test_a_signal_saves_publishes_nothing_and_the_next_start_ends_the_same(
    number: signal.Signals,
    next_node: str,
    tmp_path: Path,
    undisturbed: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a fresh node from what was pushed."""
    process = start(tmp_path, CHECKPOINT_EVERY="60m")
    wait_for_step(process, 3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 33
    assert f"{number.name} stopped the run" in errors
    assert not (only_run(tmp_path) / "manifest.json").exists()
    assert list((only_run(tmp_path) / "checkpoints").iterdir())
    with caplog.at_level("INFO"):
        run_here(tmp_path, CHECKPOINT_EVERY="60m", SCRATCH_DIR=str(tmp_path / next_node))
    assert "resuming from checkpoint" in caplog.text
    steps = [row.fields["step"] for row in caplog.records if row.message == "step"]
    assert steps[0] > 1 and steps[-1] == STEPS
    assert adapter_bytes(only_run(tmp_path)) == undisturbed


def test_sigkill_loses_only_what_came_after_the_last_checkpoint(
    tmp_path: Path, undisturbed: bytes
) -> None:
    process = start(tmp_path)
    wait_for_step(process, 5)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = run_command(tmp_path)
    assert "resuming from checkpoint step-00000" in resumed.stdout
    assert adapter_bytes(only_run(tmp_path)) == undisturbed


def test_a_step_that_would_outlive_the_grace_period_is_given_up_and_the_next_start_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.runtime import signals
    from trainer.training.resumable_trainer import ResumableTrainer

    settings = {"BATCH_SIZE": "1", "EFFECTIVE_BATCH_SIZE": "4", "CHECKPOINT_EVERY": "60m"}
    whole = adapter_bytes(run_here(tmp_path / "whole", **settings))
    done = 0
    training_step = ResumableTrainer.training_step

    def signalled_in_the_third_step(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == 10:
            signals._handle(signal.SIGTERM, None)
        return training_step(*arguments)

    monkeypatch.setattr(ResumableTrainer, "training_step", signalled_in_the_third_step)
    monkeypatch.setattr(signals, "_requested", None)
    monkeypatch.setattr(signals, "GRACE_S", 0.0)
    with pytest.raises(Interrupted):
        run_here(tmp_path / "stopped", **settings)
    assert done == 10  # of the twelve of three steps
    saved = list((tmp_path / "stopped" / "scratch" / "runs").glob("*/checkpoints/*"))
    assert [path.name for path in saved] == ["step-000002"]
    monkeypatch.setattr(signals, "_requested", None)
    assert adapter_bytes(run_here(tmp_path / "stopped", **settings)) == whole
    assert done - 10 <= 4 * (STEPS - 2)  # fewer where a step ends an epoch


def test_started_again_between_the_last_step_and_the_publishing_it_trains_no_further(
    tmp_path: Path,
) -> None:
    """By passes over the data; by steps: test_best_step.py."""
    length = {"SCHEDULER": "constant", "MAX_STEPS": "", "EPOCHS": "1.5"}
    run = run_here(tmp_path, **length)
    whole = adapter_bytes(run)
    steps = sorted(path.name for path in run.glob("checkpoints/step-*"))
    (run / "manifest.json").unlink()  # as if it had been killed before
    assert adapter_bytes(run_here(tmp_path, **length)) == whole
    assert sorted(path.name for path in run.glob("checkpoints/step-*")) == steps


def wait_for_handler(process: "subprocess.Popen[str]") -> None:
    """Until the process handles SIGTERM: Python itself takes a while to reach our first line."""
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


@pytest.mark.parametrize("after_s", [0, 0.3, 1.5, 4])
def test_a_signal_at_any_time_ends_with_33_and_a_sentence(after_s: float, tmp_path: Path) -> None:
    process = start(tmp_path, MAX_STEPS="100000")  # however fast the machine is
    wait_for_handler(process)
    time.sleep(after_s)
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 33, errors
    assert errors.startswith("stopped: ")
    assert "Traceback" not in errors


def test_a_second_signal_stops_at_once_where_the_first_waits_for_the_step(tmp_path: Path) -> None:
    many = [{"question": f"Which part is {n}?", "answer": f"HG-{n * n}"} for n in range(9000)]
    write_records(tmp_path / "data" / "many.jsonl", many)
    large = {"MAX_LENGTH": "256", "EFFECTIVE_BATCH_SIZE": "512", "BATCH_SIZE": "512"}
    process = start(tmp_path, environment={"TRANSFORMERS_VERBOSITY": "info"}, **large)
    wait_for(process, "Running training", "stderr")  # the first step takes a minute
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    while process.poll() is None:  # two that come before Python looks are one
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
    assert process.returncode == 33
    assert '"step": 1,' not in process.communicate()[0]


@pytest.mark.parametrize("line", ["fine-tuning", "micro-batch of", f'"step": {STEPS},'])
def test_a_signal_while_checking_loading_or_evaluating_publishes_nothing(
    line: str, tmp_path: Path, undisturbed: bytes
) -> None:
    process = start(tmp_path)
    wait_for(process, line)
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 33, errors
    assert not list((tmp_path / "out").glob("*/manifest.json"))
    assert not (tmp_path / "out" / "latest.json").exists()
    assert adapter_bytes(run_here(tmp_path)) == undisturbed
