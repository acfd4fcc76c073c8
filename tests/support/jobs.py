"""Running the real job, small: in this process where that is enough, as a command where not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
STEPS = 6

QUESTIONS = [
    {"question": f"What is the code of part {n}?", "answer": f"HG-{n * 37 % 1000:04}"}
    for n in range(40)
]


def write_records(path: Path, records: list[dict[str, Any]] = QUESTIONS) -> Path:
    """`records` as a `.jsonl` file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def variables(folder: Path, **changes: str) -> dict[str, str]:
    """QLORA_* variables of a run of a few steps on `folder`/data, published to `folder`/out."""
    if not (folder / "data").exists():
        write_records(folder / "data" / "questions.jsonl")
    settings = {
        "DATA_URI": str(folder / "data"),
        "OUTPUT_URI": str(folder / "out"),
        "SCRATCH_DIR": str(folder / "scratch"),
        "BASE_MODEL": "builtin:tiny",
        "MAX_LENGTH": "64",
        "EFFECTIVE_BATCH_SIZE": "4",
        "MAX_STEPS": str(STEPS),
        "LEARNING_RATE": "2e-3",
        "CHECKPOINT_EVERY": "2",
        "LOG_FORMAT": "json",
    }
    return {f"QLORA_{name}": value for name, value in (settings | changes).items()}


def run_here(folder: Path, **changes: str) -> Path:
    """Run the job in this process; the folder of the published run. Raises JobError."""
    from trainer.job import run
    from trainer.settings import Settings

    settings = Settings.read({}, variables(folder, **changes))
    return Path(settings.output_uri) / run(settings)


def stop_here(folder: Path, in_step: int = 3, **changes: str) -> None:
    """The same, stopped by SIGTERM in its third step, or another one of this start."""
    from trainer.errors import Interrupted
    from trainer.runtime import signals
    from trainer.training.resumable_trainer import ResumableTrainer

    step, done = ResumableTrainer.training_step, []

    def signalled(*arguments: Any) -> Any:
        done.append(1)
        if len(done) == in_step:
            signals._handle(signal.SIGTERM, None)
        return step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResumableTrainer, "training_step", signalled)
        patch.setattr(signals, "_requested", None)
        with pytest.raises(Interrupted):
            run_here(folder, **changes)


def start(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, **changes: str
) -> subprocess.Popen[str]:
    """Start the command as a user would, in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
    return subprocess.Popen(
        [sys.executable, "entrypoint.py", *arguments],
        cwd=ROOT,
        env=clean | (environment or {}) | variables(folder, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def run_command(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    process = start(folder, *arguments, environment=environment, **changes)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def adapter_bytes(run: Path) -> bytes:
    """The published weights of a run."""
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def published(run: Path) -> dict[str, bytes]:
    """Every file of a run by its name."""
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    wait_for(process, f'"step": {step},')


def only_run(folder: Path) -> Path:
    (run,) = (path for path in (folder / "out").iterdir() if path.is_dir())
    return run


def wait_for(process: subprocess.Popen[str], text: str, where: str = "stdout") -> None:
    """Until it prints a line with `text`."""
    for line in getattr(process, where):
        if text in line:
            return
    raise AssertionError(f"ended before {text}: {process.communicate()[1]}")
