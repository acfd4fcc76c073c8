"""A run is foretold by its own steps and questions on a base of the same sizes."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.jobs import variables

from trainer.commands import trial
from trainer.commands.look import Look, look_at
from trainer.commands.trial import Trial, can_be_tried, try_run, whole_time
from trainer.planner.choose import Execution
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime.device import Precision
from trainer.settings import Settings

TRIAL = Trial(trained_s=1e-3, start_s=10.0, read_s=0.8, answered_s=0.08)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.read({}, variables(tmp_path_factory.mktemp("trial")), trains=False)


@pytest.fixture(scope="module")
def look(settings: Settings) -> Look:
    return look_at(settings)


def execution(look: Look) -> Execution:
    layers = look.base.shape().layers
    return Execution(2, MemoryPlan(layers, unpacked_layers=layers), "")


def test_steps_and_questions_of_the_run_are_tried(
    look: Look, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.commands.trial.TRIED_S", 0.2)
    assert can_be_tried(look, execution(look))
    found = try_run(look, settings, Precision("fp32", "a CPU"), execution(look))
    assert 0 < found.trained_s < 1
    assert found.start_s > 0 and found.read_s > 0 and found.answered_s >= 0
    assert found.alone is not None
    assert 0 < found.alone.trained_s <= found.trained_s
    assert 0 < found.alone.start_s <= found.start_s


def test_what_else_runs_is_told_from_what_this_thread_waits_for_a_core() -> None:
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this kernel does not tell")
    cores = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            for process in (0, other.pid):
                os.sched_setaffinity(process, {min(cores)})
            waited_s, until = trial._waited_s(), time.thread_time() + 0.2
            while time.thread_time() < until:
                pass
            assert trial._waited_s() - waited_s > 0.02
        finally:
            os.sched_setaffinity(0, cores)
            other.kill()


def test_the_whole_run_is_start_training_questions_and_losses(look: Look) -> None:
    training_s = TRIAL.training_s(look, look.trained_tokens)
    assert training_s >= look.trained_tokens * TRIAL.trained_s
    first_s, after_s, whole_s = TRIAL.parts_s(look, look.trained_tokens)
    assert first_s == training_s and after_s > 0
    assert whole_s == pytest.approx(TRIAL.start_s + training_s + after_s)
    slow = replace(TRIAL, answered_s=1e6)  # there is a limit to the time of questions
    assert slow.afterwards_s(look, training_s) < after_s + 30 + 0.1 * training_s
    asks_none = replace(look, data=replace(look.data, questions=[], trained_questions=[]))
    assert TRIAL.afterwards_s(asks_none, training_s) < after_s
    to_be_made = replace(asks_none, expected=100)
    assert TRIAL.afterwards_s(to_be_made, training_s) > TRIAL.afterwards_s(asks_none, training_s)


def test_on_a_busy_machine_it_is_said_what_it_would_take_alone(look: Look) -> None:
    busy = replace(TRIAL, alone=replace(TRIAL, start_s=5.0, trained_s=TRIAL.trained_s / 4))
    said = whole_time(busy, look, look.trained_tokens)
    assert said.startswith(whole_time(TRIAL, look, look.trained_tokens))
    assert re.search(r"start\. Other programs .* without them: [\d.]+ \w+, then [\d.]+ \w+; ", said)
    alike = replace(TRIAL, alone=replace(TRIAL, start_s=9.9))
    assert "without them" not in whole_time(alike, look, look.trained_tokens)


def test_what_trains_by_other_code_or_for_days_is_not_tried(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not can_be_tried(look, Execution(2, None, "on the stock path"))
    monkeypatch.setattr("trainer.commands.trial.CPU_UNPACKED_BYTES", 2**20)
    assert not can_be_tried(look, execution(look))
