"""Where the seconds go from the start of a run to where its first step begins, by phase.

    python bench/start.py MODEL DATA [--rounds 2] [--warm]
    python bench/start.py MODEL DATA --whole            to its end

Each round is a process of its own, which is ended there. Seconds of processor time, all threads, in
brackets of time; `--warm` keeps the scratch folder of the first round, so that the others find its
tokens there. With `--whole` the run trains, answers and publishes: first with nothing kept
from before, then with the same scratch folder; `process` is all, as whoever started it waits.
What training takes beside its steps is told apart: of `_train` the steps are left.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent)]

PHASES = (
    "open_job",
    "_import_training",
    "open_tokenizer",
    "_prepare_data",
    "_choose_execution",
    "_load_model",
)
AFTER = (
    "_rehearse_the_end",
    "_train",
    "_keep_best",
    "_save_adapter",
    "_gate",
    "_describe",
    "_publish",
)
IN_COMPARE = ("ask", "ask_trained", "_losses", "same_when_merged")
IN_TRAINING = (  # module, class, method
    ("trainer.training.resumable_trainer", "ResumableTrainer", "__init__"),
    ("trainer.engine.decoder", "Engine", "__init__"),
    ("trainer.engine.cuda_graphs", "CapturedPasses", "__init__"),
    ("trainer.engine.cuda_graphs", "CapturedLoss", "__init__"),
    ("trainer.training.validation", "HeldOutLoss", "measure"),
    ("trainer.runs.checkpoints", "Checkpoints", "save"),
    ("trainer.training.resumable_trainer", "ResumableTrainer", "close"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        whole() if given.whole else first_step()
        return
    scratch, rounds = tempfile.mkdtemp(), []
    if given.whole:
        both = [measured(given, scratch) for _ in range(given.rounds)]
        for phase in both[0]:
            print(
                "|", phase, *(f"| {cpu:.2f} ({s:.2f})" for cpu, s in (e[phase] for e in both)), "|"
            )
        return
    for number in range(given.rounds + given.warm):
        folder = scratch if given.warm else tempfile.mkdtemp()
        found = measured(given, folder)
        if number or not given.warm:
            rounds.append(found)
    for phase in rounds[0]:
        cpu, wall = (statistics.median(each[phase][at] for each in rounds) for at in (0, 1))
        print(f"| {phase} | {cpu:.2f} ({wall:.2f}) |")


def measured(given: argparse.Namespace, scratch: str) -> dict[str, list[float]]:
    variables = {
        "QLORA_BASE_MODEL": given.model,
        "QLORA_DATA_URI": given.data,
        "QLORA_OUTPUT_URI": tempfile.mkdtemp(),
        "QLORA_SCRATCH_DIR": scratch,
        "QLORA_LOG_LEVEL": "WARNING",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [sys.executable, __file__, given.model, given.data, "--child"]
    if given.whole:  # the second run of the same data trains too
        command.append("--whole")
        variables["QLORA_RESUME"] = "never"
    began = time.perf_counter()
    out = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, check=True)
    found: dict[str, list[float]] = json.loads(out.stdout.splitlines()[-1])
    if given.whole:
        found["process"] = [found["all"][0], time.perf_counter() - began]
    return found


class Phases:
    """What each of them takes, `[processor time, time]` in seconds, without those inside it."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}
        self._inside: list[list[float]] = []
        self._began = time.perf_counter()

    def watch(self, module: Any, name: str, label: str = "") -> None:
        """The function of this name."""
        inner, label = getattr(module, name), label or name

        def outer(*args: Any, **more: Any) -> Any:
            begin = now()
            self._inside.append([0.0, 0.0])
            try:
                return inner(*args, **more)
            finally:
                self.add(label, begin, self._inside.pop())

        setattr(module, name, outer)

    def add(self, name: str, begin: list[float], inside: Sequence[float] = (0.0, 0.0)) -> None:
        spent = [end - start for end, start in zip(now(), begin, strict=True)]
        for at in (0, 1):
            for outer in self._inside[-1:]:
                outer[at] += spent[at]
            self.taken.setdefault(name, [0.0, 0.0])[at] += spent[at] - inside[at]

    def print(self) -> None:
        whole = [time.process_time(), time.perf_counter() - self._began]
        rest = [whole[at] - sum(each[at] for each in self.taken.values()) for at in (0, 1)]
        found = {"interpreter and rest": rest} | self.taken | {"all": whole}
        print(json.dumps(found), flush=True)


def now() -> list[float]:
    return [time.process_time(), time.perf_counter()]


def whole() -> None:
    """A run, and what each phase of it took. One that is rejected is at its end too."""
    phases = Phases()
    from trainer.runtime.device import wake_gpu

    wake_gpu()
    from trainer import job
    from trainer.errors import RejectedError
    from trainer.evaluation import compare
    from trainer.runtime import lean_imports, log
    from trainer.settings import Settings

    lean_imports.collect_rarely()
    log.set_up("auto", os.environ.get("BENCH_LOG", "WARNING"), sys.stderr)
    watch_training(job, phases)
    for name in (*PHASES, *AFTER):
        phases.watch(job, name)
    for name in IN_COMPARE:
        phases.watch(compare, name)
    try:
        job.run(Settings.read({}, os.environ))
    except RejectedError as error:
        print(error, file=sys.stderr)
    phases.print()
    lean_imports.collect_no_more()


def watch_training(job: Any, phases: Phases) -> None:
    """Once it is imported: that is a phase itself."""
    imports = job._import_training

    def then_watch() -> None:
        imports()
        for module, owner, method in IN_TRAINING:
            found = getattr(importlib.import_module(module), owner)
            phases.watch(found, method, f"{owner}.{method}")

    job._import_training = then_watch


def first_step() -> None:
    """Go to where the first step begins, and print what each phase took."""
    phases = Phases()
    from trainer import job
    from trainer.runtime import lean_imports
    from trainer.settings import Settings

    lean_imports.collect_rarely()
    module: Any = job

    def train(*args: Any, **more: Any) -> None:
        from trainer.training import callback

        begin = now()

        def end(*_: Any, **__: Any) -> None:
            phases.add("trainer", begin)
            phases.print()
            os._exit(0)

        classes: Any = callback
        classes.TrainingCallback.on_step_begin = end
        trains(*args, **more)

    trains = job._train
    for name in PHASES:
        phases.watch(job, name)
    module._train = train
    job.run(Settings.read({}, os.environ))


if __name__ == "__main__":
    main()
