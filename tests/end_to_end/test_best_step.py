"""The best step is published and the end comes early: killed and resumed, the same bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.forgeries import forge_newest, tensors_of
from support.jobs import adapter_bytes, run_here, start, stop_here, wait_for_step
from support.token_caches import prose
from support.worker_processes import ONE_THREAD, ends, start_workers, weights

STEPS = 60
SETTINGS = {
    "MAX_STEPS": str(STEPS),
    "LEARNING_RATE": "4e-3",
    "TARGET_MODULES": "all-linear",
    "CHECKPOINT_EVERY": "1",
    "MAX_LOSS_RATIO": "1e6",
}


def in_folder(folder: Path) -> dict[str, str]:
    """A text of random words, judged by another one: it is soon learned by heart."""
    for name, seed in (("data", 0), ("judged", 9)):
        if not (folder / name).exists():
            (folder / name).mkdir(parents=True)
            (folder / name / "a.md").write_text(prose(seed, paragraphs=3))
    return SETTINGS | {"EVAL_URI": str(folder / "judged")}


def training_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text())["training"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return run_here(folder, **in_folder(folder))


@pytest.fixture(scope="module")
def stopped(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped two steps behind its best one."""
    folder = tmp_path_factory.mktemp("stopped")
    stop_here(folder, training_of(whole)["kept_step"] + 2, **in_folder(folder))
    return folder


def test_the_best_step_is_published_and_the_end_comes_early(whole: Path) -> None:
    training = training_of(whole)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert training["kept_step"] == training["best_held_out_step"] < training["steps"] < STEPS
    assert training["planned_steps"] == STEPS and len(rows) == training["steps"]
    tuned = json.loads((whole / "run.json").read_text())["evaluation"]["tuned"]
    assert training["kept_because"].startswith(f"a held-out loss of {tuned['loss']:.4f} against")
    page = (whole / "report.html").read_text()
    assert f"of step {training['kept_step']}: a held-out loss of" in page
    assert f"{training['steps']} of {STEPS}: ended early" in page
    assert "the adapter is that of that step" in page


def test_what_is_judged_and_published_is_that_step(whole: Path, tmp_path: Path) -> None:
    """Trained no further than it, with the same schedule, it is the adapter of that moment."""
    stop_here(tmp_path, training_of(whole)["kept_step"], **in_folder(tmp_path))
    (newest,) = sorted(tmp_path.glob("scratch/runs/*/checkpoints/step-*"))[-1:]
    from safetensors.torch import load, load_file

    then = load_file(newest / "adapter.safetensors")
    published = load(adapter_bytes(whole))
    assert len(published) == len(then)
    for name, tensor in published.items():
        assert then[name.replace(".weight", ".default.weight")].equal(tensor)


def test_the_last_one_is_kept_where_that_is_asked(whole: Path, tmp_path: Path) -> None:
    run = run_here(tmp_path, **in_folder(tmp_path), KEEP="last")
    training = training_of(run)
    assert (training["kept_step"], training["steps"]) == (STEPS, STEPS)
    assert training["kept_because"] == "the last one; QLORA_KEEP=last"
    assert not list(tmp_path.glob("scratch/runs/*/checkpoints/*/best.safetensors"))
    assert adapter_bytes(run) != adapter_bytes(whole)


@pytest.mark.parametrize("late", [0, 1])  # later ones below
def test_stopped_and_resumed_it_ends_in_the_same_bytes(
    late: int, whole: Path, tmp_path: Path
) -> None:
    """A signal in the best step leaves no time to measure it: the next start does."""
    stop_here(tmp_path, training_of(whole)["kept_step"] + late, **in_folder(tmp_path))
    run = run_here(tmp_path, **in_folder(tmp_path))
    assert adapter_bytes(run) == adapter_bytes(whole)
    for name in ("steps", "kept_step", "kept_because", "best_held_out_loss"):
        assert training_of(run)[name] == training_of(whole)[name]


def test_killed_after_the_early_end_it_trains_no_further(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole.parent.parent, tmp_path / "run")
    run = next(path.parent for path in tmp_path.glob("run/out/*/manifest.json"))
    (run / "manifest.json").unlink()
    settings = in_folder(tmp_path / "run")
    again = run_here(tmp_path / "run", **settings)
    assert again == run and adapter_bytes(again) == adapter_bytes(whole)
    assert training_of(again)["steps"] == training_of(whole)["steps"]


@pytest.mark.parametrize("place", ["disk", "store"])
def test_the_best_step_travels_in_each_checkpoint(
    place: str, stopped: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However many later ones there are: its own was removed long ago."""
    folder = shutil.copytree(stopped, tmp_path / "run")
    for kept in (*folder.glob("scratch/runs/*/checkpoints"), *folder.glob("out/*/checkpoints")):
        for old in sorted(kept.glob("step-*"))[:-1]:
            shutil.rmtree(old)
    if place == "store":
        shutil.rmtree(folder / "scratch")
    with caplog.at_level("INFO"):
        run = run_here(folder, **in_folder(folder))
    assert "resuming from checkpoint" in caplog.text
    assert adapter_bytes(run) == adapter_bytes(whole)


def test_a_checkpoint_whose_best_step_is_damaged_is_named_and_the_one_before_is_used(
    stopped: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    forge_newest(folder, tensors_of("best.safetensors", lambda tensors: tensors.popitem()))
    run = run_here(folder, **in_folder(folder))
    assert "is invalid and is not used: best.safetensors lacks" in caplog.text
    assert adapter_bytes(run) == adapter_bytes(whole)


def test_killed_behind_the_best_step_it_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, **in_folder(tmp_path))
    wait_for_step(process, training_of(whole)["kept_step"] + 3)
    process.kill()
    process.communicate()
    assert adapter_bytes(run_here(tmp_path, **in_folder(tmp_path))) == adapter_bytes(whole)


def test_several_workers_end_after_the_same_step_and_keep_the_same(tmp_path: Path) -> None:
    """The main one measures, and the others hear of it."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    settings = in_folder(alone) | {"BATCH_SIZE": "1"}
    assert ends([start(alone, environment=ONE_THREAD, **settings)]) == [0]
    settings = in_folder(together) | {"BATCH_SIZE": "1"}
    assert ends(start_workers(together, 2, **settings)) == [0, 0]
    assert weights(together) == weights(alone)
    found = [training_of(path.parent) for path in tmp_path.glob("*/out/*/manifest.json")]
    assert found[0]["kept_step"] == found[1]["kept_step"] < found[0]["steps"] < STEPS
