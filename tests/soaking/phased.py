"""SIGTERM in each phase of a run on a larger corpus: how long each phase takes to hear it."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support.jobs import ROOT, write_records

from soaking.harness import Soak
from soaking.place import Place
from soaking.processes import Child, fork

MOST_S = 2.0  # from the end of a step, in training, and from anywhere else
CORPUS_MB = 8
CHANGES = {
    **{"LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "MAX_STEPS": "12", "CHECKPOINT_EVERY": "4"},
    **{"EFFECTIVE_BATCH_SIZE": "8", "MAX_LENGTH": "128"},
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
        took: list[tuple[float, str, float, int]] = []
        for number in range(count or 100):
            name = CASES[number % len(CASES)]
            at = soak.random.uniform(0.1, begun[name])  # handlers are there by then
            reset(place, name)
            if name in BEGINS:
                child = place.start()
                wait_for(place, child, name)
            else:
                child = command(place, "merge" if name == "merging" else "export")
            time.sleep(at)
            signalled = time.monotonic()
            is_late = child.ended()
            child.signal(signal.SIGTERM)
            code, seconds = child.wait(), time.monotonic() - signalled
            if is_late:
                soak.tally.ended["over before the signal"] += 1
                print(f"  {name} {at:.2f}: over with {code}: {place.said()[:200]}", flush=True)
                continue
            limit = MOST_S + (begun["a step"] if name in ("loading", "training") else 0)
            soak.tally.ended[f"exit {code}"] += 1
            finished = name not in BEGINS or bool(place.finished())
            right = code == 33 or (code == 0 and finished)
            soak.tally.must(right and seconds <= limit, f"{name} {at:.2f}: {code} {seconds:.2f} s")
            took.append((seconds, name, at, code))
        table(took)


def table(took: list[tuple[float, str, float, int]]) -> None:
    for name in dict.fromkeys(CASES):
        mine = sorted(seconds for seconds, of, _, _ in took if of == name)
        if mine:
            print(
                f"  {name}: {len(mine)}, median {mine[len(mine) // 2]:.2f} s, most {mine[-1]:.2f}"
            )
    for seconds, name, at, code in sorted(took, reverse=True)[:10]:
        print(f"  {seconds:.2f} s: {name}, {at:.2f} s in, exit {code}", flush=True)


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
    keep(place, "published", ("out",))
    for name, verb in (("merging", "merge"), ("exporting", "export")):
        reset(place, name)
        started = time.monotonic()
        assert command(place, verb).wait() == 0, place.said()
        lasts[name] = time.monotonic() - started
    return lasts | {"a step": lasts["training"] / 12}


def keep(place: Place, state: str, parts: tuple[str, ...]) -> None:
    for part in parts:
        shutil.copytree(place.folder / part, place.folder / state / part)
    (place.folder / state / "scratch").mkdir(mode=0o700, exist_ok=True)
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
        import os

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
