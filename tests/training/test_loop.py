"""What a run goes on from, and that what changes the last bits is as it was."""

import json
import shutil
from pathlib import Path

import pytest
from support.forgeries import bytes_of, forge_newest, json_of, tensors_of
from support.jobs import adapter_bytes, run_here, stop_here

from trainer.errors import SettingsError
from trainer.planner import choose
from trainer.training.loop import TrainingResult

SETTINGS = {"CHECKPOINT_EVERY": "1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return adapter_bytes(run_here(tmp_path_factory.mktemp("whole"), **SETTINGS))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its third step: checkpoints of the second and the third."""
    folder = tmp_path_factory.mktemp("stopped")
    stop_here(folder, **SETTINGS)
    return folder


@pytest.mark.parametrize("place", ["disk", "store"])
def test_the_next_older_one_is_used(
    place: str, stopped: Path, whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    forge_newest(folder, bytes_of("adapter.safetensors", bytes(range(256))))
    if place == "store":
        shutil.rmtree(folder / "scratch")
    with caplog.at_level("INFO"):
        run = run_here(folder, **SETTINGS)
    assert (
        "step-000003 is invalid and is not used: adapter.safetensors cannot be read" in caplog.text
    )
    assert "resuming from checkpoint step-000002" in caplog.text
    assert adapter_bytes(run) == whole


def test_with_none_left_it_starts_over_and_says_so_or_fails_where_it_must_resume(
    stopped: Path, whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    forge_newest(
        folder, tensors_of("adapter.safetensors", lambda tensors: tensors.popitem()), slice(None)
    )
    other = shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(SettingsError, match="RESUME=must: this run has no valid checkpoint"):
        run_here(other, RESUME="must", **SETTINGS)
    caplog.clear()
    run = run_here(folder, **SETTINGS)
    assert "step-000003 is invalid" in caplog.text
    assert "step-000002 is invalid" in caplog.text
    assert "no checkpoint of this run can be used; it starts from its first step" in caplog.text
    assert "resuming" not in caplog.text
    assert adapter_bytes(run) == whole


def blocks_of(run: Path) -> int:
    return int(json.loads((run / "run.json").read_text())["micro_batch"]["blocks"])


def test_a_run_goes_on_with_the_micro_batch_that_it_began_with(
    stopped: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "CPU_MICRO_BATCH", 2)  # as on a GPU with less free memory
    folder = shutil.copytree(stopped, tmp_path / "run")
    run = run_here(folder, **SETTINGS)
    assert blocks_of(run) == 4
    assert adapter_bytes(run) == whole
    other = run_here(tmp_path / "other", **SETTINGS)
    assert blocks_of(other) == 2
    assert adapter_bytes(other) != whole


def test_where_that_does_not_fit_any_more_it_is_said(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    forge_newest(folder, json_of("plan.json", lambda plan: plan.update(blocks=64)))
    run = run_here(folder, **SETTINGS)
    assert caplog.text.count("began with micro-batches of 64 blocks, in a way that does not") == 1
    assert blocks_of(run) == 4


def test_the_stock_path_goes_on_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_here(tmp_path, ENGINE="stock", **SETTINGS)
    weights = adapter_bytes(run)
    (run / "manifest.json").unlink()
    for place in (run, *tmp_path.glob("scratch/runs/*")):
        shutil.rmtree(place / "checkpoints" / "step-000006")
    with caplog.at_level("INFO"):
        assert adapter_bytes(run_here(tmp_path, ENGINE="stock", **SETTINGS)) == weights
    assert "resuming from checkpoint step-000005" in caplog.text


def test_the_loss_of_a_result_is_the_mean_of_its_last_tenth() -> None:
    history = [{"step": n, "loss": float(n), "held_out_loss": 30.0 - n} for n in range(1, 21)]
    history[-1] |= {"loss": None, "held_out_loss": 40.0}
    execution = choose.Execution(1, None, "")
    result = TrainingResult(20, 1.0, 1.0, None, execution, history)
    assert result.loss == 19.0
    assert result.best is history[18]
