"""Where the seconds go from the start of a run to where its first step begins, by phase.

    python bench/start.py MODEL DATA [--rounds 2] [--warm]

Each round is a process of its own, which is ended there. Seconds of processor time, all threads, in
brackets of time; `--warm` keeps the scratch folder of the first round, so that the others find its
tokens there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        first_step()
    scratch, rounds = tempfile.mkdtemp(), []
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
    out = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, check=True)
    found: dict[str, list[float]] = json.loads(out.stdout.splitlines()[-1])
    return found


def first_step() -> None:
    """Go to where the first step begins, and print what each phase took."""
    began = time.perf_counter()
    taken: dict[str, list[float]] = {}
    from trainer import job
    from trainer.runtime import lean_imports
    from trainer.settings import Settings

    lean_imports.collect_rarely()
    module: Any = job

    def timed(name: str) -> Any:
        inner = getattr(job, name)

        def outer(*args: Any, **more: Any) -> Any:
            begin = time.process_time(), time.perf_counter()
            try:
                return inner(*args, **more)
            finally:
                taken[name] = [time.process_time() - begin[0], time.perf_counter() - begin[1]]

        return outer

    def train(*args: Any, **more: Any) -> None:
        from trainer.training import callback

        begin = time.process_time(), time.perf_counter()

        def end(*_: Any, **__: Any) -> None:
            taken["trainer"] = [time.process_time() - begin[0], time.perf_counter() - begin[1]]
            whole = [time.process_time(), time.perf_counter() - began]
            rest = [whole[at] - sum(each[at] for each in taken.values()) for at in (0, 1)]
            print(json.dumps({"interpreter and rest": rest} | taken | {"all": whole}), flush=True)
            os._exit(0)

        classes: Any = callback
        classes.TrainingCallback.on_step_begin = end
        trains(*args, **more)

    trains = job._train
    for name in PHASES:
        setattr(module, name, timed(name))
    module._train = train
    job.run(Settings.read({}, os.environ))


if __name__ == "__main__":
    main()
