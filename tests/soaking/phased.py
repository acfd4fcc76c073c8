"""SIGTERM in each phase of a run on a larger corpus: how long each phase takes to hear it.

In training the clock starts with the end of the step that the signal came in: a step is not broken
off unless it would outlive the grace period.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.jobs import ROOT, write_records

from soaking.harness import Soak
from soaking.place import Place
from soaking.processes import Child, fork

MOST_S = 2.0  # from the signal, or from the end of the step that it came in
CORPUS_MB = 32
CHANGES = {
    **{"LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "MAX_STEPS": "12", "CHECKPOINT_EVERY": "4"},
    **{"EFFECTIVE_BATCH_SIZE": "8", "MAX_LENGTH": "128"},
    "MAX_LOSS_RATIO": "2",  # it is published, whatever it has learned
    "BASE_MODEL": os.environ.get("SOAK_BASE_MODEL", "builtin:tiny"),
}
# What is in the log, or on the disk, when a phase begins.
BEGINS = {
    "reading and tokenising": ("fine-tuning",),
    "loading": ("micro-batch of",),
    "training": ("the first step begins",),
    "answering": ("checkpoint of step 12", "checkpoint step-000012"),  # the latter if resumed
    "judging, writing, publishing": ("scratch/runs/*/run/adapter",),
}
CASES = (*BEGINS, "merging", "exporting")


def phases(soak: Soak, count: int) -> None:
    """As many SIGTERMs as asked, dealt over the phases of a run, and over a merge and an export."""
    with soak.place(**CHANGES) as place:
        corpus(place.folder / "data")
        place.variables["QLORA_EVAL_URI"] = str(questions(place.folder / "eval", 20))
        begun = undisturbed(place)
        print({name: round(seconds, 1) for name, seconds in begun.items()}, flush=True)
        took: list[Ended] = []
        for number in range(count or 100):
            name = CASES[number % len(CASES)]
            at = soak.random.uniform(0.1, begun[name])  # handlers are there by then
            while (ended := signalled(place, name, at)) is None:
                soak.tally.ended["over before the signal, sent again earlier"] += 1
                at /= 2
            soak.tally.ended[f"exit {ended.code}"] += 1
            finished = name not in BEGINS or bool(place.finished())
            right = ended.code == 33 or (ended.code == 0 and finished)
            soak.tally.must(right and ended.seconds <= MOST_S, f"{ended}: {place.said()}")
            took.append(ended)
        table(took)


class Ended(NamedTuple):
    """How long it took from the signal, or from the end of the step that it came in; `in_all` is
    from the signal."""

    seconds: float
    name: str
    at: float
    code: int
    in_all: float


def signalled(place: Place, name: str, at: float) -> Ended | None:
    """One attempt that gets SIGTERM `at` seconds into a phase; None where it was over by then."""
    reset(place, name)
    stepped = place.folder / "stepped"
    stepped.unlink(missing_ok=True)
    if name in BEGINS:
        child = place.start(lambda: note_steps(stepped))
        wait_for(place, child, name)
    else:
        child = command(place, "merge" if name == "merging" else "export")
    time.sleep(at)
    if child.ended():
        child.wait()
        return None
    sent = time.monotonic()
    child.signal(signal.SIGTERM)
    code, end = child.wait(), time.monotonic()
    from_ = max(sent, float(stepped.read_text())) if stepped.exists() else sent
    return Ended(end - from_, name, at, code, end - sent)


def note_steps(path: Path) -> None:
    """Keep in `path` when the newest step ended, by a clock that all processes share."""
    from trainer.training.callback import TrainingCallback

    step_ended = TrainingCallback.on_step_end

    def note(*arguments: Any, **named: Any) -> None:
        path.write_text(str(time.monotonic()))
        step_ended(*arguments, **named)

    TrainingCallback.on_step_end = note  # type: ignore[method-assign]


def table(took: list[Ended]) -> None:
    for name in CASES:
        mine = sorted(ended.seconds for ended in took if ended.name == name)
        if mine:
            middle = mine[len(mine) // 2]
            print(f"  {name}: {len(mine)}, median {middle:.2f} s, most {mine[-1]:.2f}")
    for ended in sorted(took, reverse=True)[:10]:
        print(f"  {ended.seconds:.2f} s: {ended}", flush=True)


def corpus(folder: Path) -> None:
    """Prose, web pages and questions."""
    import subprocess

    made = [sys.executable, "bench/text.py", str(folder), str(CORPUS_MB)]
    subprocess.run(made, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for number, path in enumerate(sorted(folder.rglob("*.md"))[:100]):
        page = f"<html><body><p>{path.read_text()}</p></body></html>"
        (folder / f"{number}.html").write_text(page)
    questions(folder, 300)


def questions(folder: Path, count: int) -> Path:
    records = [{"question": f"Where is {n}?", "answer": f"On {n * 7}."} for n in range(count)]
    return write_records(folder / "questions.jsonl", records)


def undisturbed(place: Place) -> dict[str, float]:
    """How long each phase lasts; what later cases begin from is kept."""
    child, starts = place.start(), {}
    for name in BEGINS:
        wait_for(place, child, name)
        starts[name] = time.monotonic()
        if name == "loading":
            keep(place, "tokenised", ("scratch/tokens",))
        if name == "answering":
            keep(place, "trained", ("scratch/tokens", "scratch/runs", "out"))
    assert child.wait() == 0, place.said()
    ends = [*list(starts.values())[1:], time.monotonic()]
    lasts = {name: end - start for (name, start), end in zip(starts.items(), ends, strict=True)}
    keep(place, "published", ("out", "scratch/bases"))  # where a base lies that is a folder
    for name, verb in (("merging", "merge"), ("exporting", "export")):
        reset(place, name)
        started = time.monotonic()
        assert command(place, verb).wait() == 0, place.said()
        lasts[name] = time.monotonic() - started
    return lasts


def keep(place: Place, state: str, parts: tuple[str, ...]) -> None:
    for part in parts:
        if (place.folder / part).is_dir():
            shutil.copytree(place.folder / part, place.folder / state / part)
    (place.folder / state / "scratch").mkdir(mode=0o700, parents=True, exist_ok=True)
    (place.folder / state / "scratch").chmod(0o700)


def reset(place: Place, name: str) -> None:
    """As it was when a run came to this phase, as far as a kill leaves it."""
    state = {"reading and tokenising": "", "loading": "tokenised", "training": "tokenised"}
    before = state.get(name, "trained" if name in BEGINS else "published")
    for part in ("scratch", "out", "merged"):
        shutil.rmtree(place.folder / part, ignore_errors=True)
        if before and (place.folder / before / part).is_dir():
            shutil.copytree(place.folder / before / part, place.folder / part)
    (place.folder / "log").unlink(missing_ok=True)


def wait_for(place: Place, child: Child, name: str) -> None:
    """Until the phase begins, or the process is over."""
    while not child.ended():
        if any("/" in mark and any(place.folder.glob(mark)) for mark in BEGINS[name]):
            return
        if any(mark in line for line in said(place) for mark in BEGINS[name]):
            return
        time.sleep(0.01)


def said(place: Place) -> Iterator[str]:
    path = place.folder / "log"
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("{") and line.endswith("}"):
            yield str(json.loads(line)["message"])


def command(place: Place, verb: str) -> Child:
    """`merge` or `export` of what was published."""
    (run,) = (path for path in (place.folder / "out").iterdir() if path.is_dir())

    def work() -> None:
        from trainer import cli
        from trainer.runtime import signals

        signals.install()
        log = (place.folder / "log").open("a")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.environ["QLORA_SCRATCH_DIR"] = str(place.folder / "scratch")
        sys.argv = ["entrypoint.py", verb, "--adapter", str(run), "--output"]
        sys.argv += [str(place.folder / "merged")]
        cli.main()

    child = fork(work)
    while not (place.folder / "log").exists():
        time.sleep(0.01)
    return child
