"""Trackers: off by default, each fed for real, none of them able to end a run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import ROOT, STEPS, published, run_command, run_here, variables

from trainer import setting_checks
from trainer.errors import SettingsError
from trainer.monitoring import trackers


def step_rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_none_of_them_needs_to_be_installed(tmp_path: Path) -> None:
    script = """
import os, sys
sys.modules |= dict.fromkeys(("mlflow", "wandb", "tensorboard"))  # an import of these now fails
from trainer.job import run
from trainer.settings import Settings
run(Settings.read({}, os.environ))
"""
    environment = os.environ | variables(tmp_path, MAX_STEPS="3")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert next((tmp_path / "out").glob("*/manifest.json")).is_file()


def test_tensorboard_files_hold_every_step_and_are_published(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_here(tmp_path, REPORT_TO="tensorboard")
    (name,) = (n for n in published(run) if n.startswith("tensorboard/"))
    assert socket.gethostname() not in name
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    loss = [(event.step, event.value) for event in events.Scalars("loss")]
    assert loss == [(row["step"], pytest.approx(row["loss"])) for row in step_rows(run)]
    scores = json.loads((run / "run.json").read_text())["evaluation"]
    (exact,) = events.Scalars("tuned_f1")
    assert exact.value == pytest.approx(scores["tuned"]["f1"])


def test_tensorboard_has_no_gap_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trackers.Tracking, "finish", _fail)
        with pytest.raises(RuntimeError):
            run_here(tmp_path, REPORT_TO="tensorboard")
    run = run_here(tmp_path, REPORT_TO="tensorboard")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, STEPS + 1))


def _fail(*_: object) -> None:
    raise RuntimeError


def test_mlflow_gets_settings_steps_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = run_here(tmp_path, REPORT_TO="mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("qlora-job")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.name
    assert found.info.status == "FINISHED"
    assert found.data.params["lora_r"] == "8"
    assert str(tmp_path) not in json.dumps(found.data.params)
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [m.step for m in history] == list(range(1, STEPS + 1))
    assert "tuned_exact" in found.data.metrics


def test_wandb_gets_settings_steps_and_scores_without_a_network(tmp_path: Path) -> None:
    environment = os.environ | variables(tmp_path, REPORT_TO="wandb") | {"WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "entrypoint.py"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(json.loads(line) for line in done.stdout.splitlines())
    (file,) = (tmp_path / "scratch").rglob("*.wandb")
    content = file.read_bytes()
    assert content.count(b"held_out_loss") >= STEPS
    assert b"tuned_exact" in content


def test_a_tracker_that_cannot_be_reached_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow asks a port where nothing listens."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = run_command(tmp_path, REPORT_TO="mlflow")
    assert done.returncode == 0, done.stderr
    assert "mlflow is left out" in done.stdout
    assert next((tmp_path / "out").glob("*/manifest.json")).is_file()


def test_a_missing_package_or_an_unknown_name_ends_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"REPORT_TO=comet needs some of tensorboard"):
        run_here(tmp_path, REPORT_TO="comet,wandb")
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"wandb: not installed here; `pip install -r"):
        run_here(tmp_path, REPORT_TO="wandb")


def test_every_name_of_the_setting_is_a_tracker_whose_package_is_required() -> None:
    assert tuple(trackers.TRACKERS) == setting_checks.TRACKERS
    required = (ROOT / "requirements-tracking.txt").read_text()
    assert all(f"\n{kind.package}" in f"\n{required}" for kind in trackers.TRACKERS.values())
