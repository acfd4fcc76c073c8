"""Models and checkpoints that would run code when they are read: none of it runs."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.jobs import adapter_bytes, run_here, stop_here
from support.pickles import pickled, saved_by_torch
from support.small_adapters import TINY

from trainer.errors import SettingsError
from trainer.storage.manifest import seal

Poison = Callable[[Path, Path], object]


def code(mark: Path) -> bytes:
    return f"open({str(mark)!r}, 'w')\nclass Evil: ...\n".encode()


def put(name: str, content: Callable[[Path], bytes]) -> Poison:
    return lambda folder, mark: (folder / name).write_bytes(content(mark))


def put_json(name: str, changes: Callable[[Path], dict[str, Any]]) -> Poison:
    def change(folder: Path, mark: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | changes(mark)))

    return change


def both(*poisons: Poison) -> Poison:
    return lambda folder, mark: [poison(folder, mark) for poison in poisons]


def test_the_poison_works(tmp_path: Path) -> None:
    marks = [tmp_path / name for name in ("pickle", "torch", "code")]
    pickle.loads(pickled(marks[0]))
    torch.load(io.BytesIO(saved_by_torch(marks[1])), weights_only=False)
    exec(code(marks[2]))
    assert all(mark.exists() for mark in marks)


# -- models -------------------------------------------------------------------------------

CODE = both(put("evil.py", code), put("__init__.py", code))
AUTO_MAP = {
    "auto_map": {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
}


def only_a_pickle(folder: Path, mark: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(saved_by_torch(mark))


@pytest.mark.parametrize(
    ("poison", "refusal"),
    [
        (put("pytorch_model.bin", saved_by_torch), ""),
        (both(CODE, put_json("config.json", lambda _: AUTO_MAP)), ""),
        (both(CODE, put_json("tokenizer_config.json", lambda _: AUTO_MAP)), ""),
        (
            both(CODE, put_json("config.json", lambda _: AUTO_MAP | {"model_type": "evil"})),
            "needs code of its own, which is never run",
        ),
        (put_json("config.json", lambda _: {"model_type": "evil"}), "'evil' is no model"),
        (only_a_pickle, "pickled weights are never read"),
    ],
    ids=["bin beside safetensors", "model code", "tokenizer code", "unknown type with code",
         "unknown type", "only a pickle"],
)  # fmt: skip
def test_a_model_runs_no_code(poison: Poison, refusal: str, tmp_path: Path) -> None:
    base, mark = shutil.copytree(TINY, tmp_path / "base"), tmp_path / "mark"
    poison(base, mark)
    settings = {"BASE_MODEL": str(base)}
    if refusal:
        with pytest.raises(SettingsError, match=refusal):
            run_here(tmp_path, **settings)
    else:
        assert adapter_bytes(run_here(tmp_path, **settings))
    assert not mark.exists()


# -- checkpoints --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of its third step, on this disk only."""
    folder = tmp_path_factory.mktemp("stopped")
    stop_here(folder, CHECKPOINT_EVERY="60m")
    for stored in (folder / "out").glob("*/checkpoints"):
        shutil.rmtree(stored)
    return folder


BESIDE = {
    "optimizer.pt": saved_by_torch,
    "scheduler.pt": pickled,
    "rng_state.pth": saved_by_torch,
    "scaler.pt": pickled,
    "training_args.bin": saved_by_torch,
    "pytorch_model.bin": saved_by_torch,
    "adapter_model.bin": saved_by_torch,
    "state.pkl": pickled,
}


def test_a_checkpoint_runs_no_code_even_with_a_manifest_that_lists_it(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is put in place of its own files is in `test_soundness.py`."""
    folder, mark = shutil.copytree(stopped, tmp_path / "run"), tmp_path / "mark"
    (newest,) = folder.glob("scratch/runs/*/checkpoints/step-*")
    for name, content in (BESIDE | {"metrics.jsonl": code}).items():
        (newest / name).write_bytes(content(mark))
    seal(newest)
    with caplog.at_level("INFO"):
        run_here(folder)
    assert f"resuming from checkpoint {newest.name}" in caplog.text  # it was not skipped
    assert not mark.exists()


def test_what_was_put_beside_a_checkpoint_makes_it_invalid(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, mark = shutil.copytree(stopped, tmp_path / "run"), tmp_path / "mark"
    (newest,) = folder.glob("scratch/runs/*/checkpoints/step-*")
    for name, content in BESIDE.items():
        (newest / name).write_bytes(content(mark))
    run_here(folder)
    assert "adapter_model.bin, optimizer.pt" in caplog.text
    assert not mark.exists()
