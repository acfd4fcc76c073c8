"""Runs that are killed, starved and damaged on purpose; every one must end the same or say why not.

    python tests/soak.py kills:200 operations signals:100

    kills         SIGKILL at random instants
    operations    SIGKILL before every file operation of a run, or before so many of them
    saves         the same in the save, push and retirement of one checkpoint, fsyncs included
    signals       SIGTERM in all phases, as PID 1 of a namespace, each fifth from the interpreter's
                  start on
    damage        every file of a stopped run: missing, empty, half, a bit flipped
    publishing    SIGKILL while publishing, with a reader polling
    races         two jobs, one run id; three of four pairs disagree
    disks         scratch and output disks of many sizes, and read-only ones
    server        the S3 server crashes, freezes, answers SlowDown
    faults        requests are truncated, reset, delayed, refused and left without an answer

`server` needs S3_SERVER, a command that takes start, crash, freeze, thaw and limit; `faults` needs
S3_FAULT_PROXY, which takes its port and the server's. With `--s3` data, checkpoints and results are
in a bucket (AWS_* name the server). The job's real code
runs in processes forked from this one, which has imported everything and computed nothing: an
attempt then costs seconds less. As many cases as there are cores run side by side. Exits with 1 if
any run ended in a way it must not.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import mmap
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conftest import unused_port, wait_until_open
from jobs import ROOT, variables, write_records

RETRYABLE = {1, 12, 33, -signal.SIGKILL}
MOST_ATTEMPTS = 60
DAMAGE = ("missing", "empty", "half", "flipped")
CLONE_NEWPID = 0x20000000
EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "http.client.send"}
WEIGHTS = "adapter/adapter_model.safetensors"
# The fifth step ends an epoch.
SMALL = {"MAX_STEPS": "6", "CHECKPOINT_EVERY": "1", "LOG_LEVEL": "WARNING"}


def preload() -> None:
    """Import everything the job imports; start no thread and compute nothing before a fork."""
    import boto3  # noqa: F401

    import trainer.job
    from trainer import lean

    lean.import_bitsandbytes()
    with lean.without_wandb():
        import trainer.train  # noqa: F401
    gc.collect()
    gc.freeze()  # or each collection in a child copies all that is imported


@lru_cache
def bucket_in(name: str, _process: int) -> Any:
    """A bucket as this process alone uses it: a fork would share its connections."""
    import boto3

    return boto3.session.Session().resource("s3").Bucket(name)


class Place:
    """Where one series of attempts trains: its own scratch, output and run."""

    def __init__(self, folder: Path, bucket_name: str, **changes: str) -> None:
        self.folder = folder
        self.bucket_name = bucket_name
        self.prefix = f"{folder.name}-{secrets.token_hex(4)}/"
        if bucket_name:
            places = {"OUTPUT_URI": self.prefix, "DATA_URI": "data/"}
            changes = {n: f"s3://{bucket_name}/{p}" for n, p in places.items()} | changes
        self.variables = variables(folder, **(SMALL | changes))

    @property
    def bucket(self) -> Any:
        return bucket_in(self.bucket_name, os.getpid())

    def attempt(
        self,
        *,
        kill_after_s: float | None = None,
        number: signal.Signals = signal.SIGKILL,
        kill_before: int | None = None,
        of_save: bool = False,
    ) -> int:
        """One start of the job; its exit code, negative for a signal."""

        def prepare() -> None:
            if kill_before is not None:
                Operations(self).kill_before(kill_before, of_save)

        child = self.start(prepare)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            child.signal(signal.SIGKILL)
        return child.wait()

    def start(
        self,
        prepare: Callable[[], None] = lambda: None,
        *,
        as_pid_1: bool = False,
        from_the_start: bool = False,
        **changes: str,
    ) -> "Child":
        """Start the job; `from_the_start` as a new interpreter that imports everything itself."""

        def job() -> None:
            from trainer import cli, stopping

            os.environ.update(self.variables | {f"QLORA_{k}": v for k, v in changes.items()})
            log = (self.folder / "log").open("a")
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            if from_the_start:
                os.chdir(ROOT)
                os.execv(sys.executable, [sys.executable, "entrypoint.py"])
            prepare()
            sys.argv = ["entrypoint.py"]
            stopping.install()
            cli.main()

        return fork(job, as_pid_1)

    def published(self) -> dict[str, dict[str, bytes]]:
        """The objects of each finished run, checked against its manifest, by run id."""
        from trainer.storage import fetch_verified, open_store

        store = open_store(self.variables["QLORA_OUTPUT_URI"], retry_minutes=0)
        runs = {}
        for run in self.finished():
            into = Path(tempfile.mkdtemp(dir=self.folder))
            fetch_verified(store, run, into)
            files = [path for path in into.rglob("*") if path.is_file()]
            runs[run] = {str(path.relative_to(into)): path.read_bytes() for path in files}
            shutil.rmtree(into)
        return runs

    def finished(self) -> list[str]:
        """The ids of the finished runs."""
        from trainer.storage import open_store

        store = open_store(self.variables["QLORA_OUTPUT_URI"], retry_minutes=0)
        names = [stored.name for stored in store.list() if stored.name.endswith("/manifest.json")]
        return [name.split("/")[0] for name in names if name.count("/") == 1]

    def weights(self) -> bytes | None:
        """Of the only finished run; None before that."""
        runs = list(self.published().values())
        assert len(runs) < 2
        return runs[0][WEIGHTS] if runs else None

    def files(self) -> list[str]:
        """Everything that the run left on disk, and in the bucket as `s3:` names."""
        local = [
            str(path.relative_to(self.folder))
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "data" not in path.parts and path.name != "log"
        ]
        return local + ["s3:" + name for name, _ in self._objects()]

    def copy(self, origin: "Place") -> None:
        """Take over everything that `origin` left."""
        shutil.copytree(origin.folder, self.folder, dirs_exist_ok=True)
        for name, stored in origin._objects():
            self.bucket.Object(self.prefix + name).put(Body=stored.get()["Body"].read())

    def damage(self, name: str, how: str) -> None:
        """Spoil one of `files`; one in the output is then all there is, as on a fresh node."""
        if name.startswith(("s3:", "out/")):
            shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        if name.startswith("s3:"):
            stored = self.bucket.Object(self.prefix + name.removeprefix("s3:"))
            data = spoilt(stored.get()["Body"].read(), how)
            stored.delete() if data is None else stored.put(Body=data)
            return
        path = self.folder / name
        data = spoilt(path.read_bytes(), how)
        path.unlink() if data is None else path.write_bytes(data)

    def _objects(self) -> list[tuple[str, Any]]:
        if not self.bucket_name:
            return []
        listed = self.bucket.objects.filter(Prefix=self.prefix)
        return [(stored.key.removeprefix(self.prefix), stored.Object()) for stored in listed]

    def said(self) -> str:
        """The last line that the job printed."""
        lines = (self.folder / "log").read_text().splitlines()
        return lines[-1] if lines else ""


class Child:
    """A forked process; `target` is who gets the signal."""

    def __init__(self, parent: int, target: int) -> None:
        self.parent = parent
        self.target = target

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.target, number)

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.parent, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.parent, 0)[1])


def fork(work: Callable[[], None], as_pid_1: bool = False) -> Child:
    """Run `work` in a child, if asked as the first process of a new PID namespace."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        if not as_pid_1:
            os.write(writer, str(os.getpid()).encode())
            run_and_exit(work)
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID):
            os._exit(99)
        first = os.fork()
        if first == 0:
            run_and_exit(work)
        os.write(writer, str(first).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    os.close(writer)
    target = int(os.read(reader, 20))
    os.close(reader)
    return Child(parent, target)


def run_and_exit(work: Callable[[], None]) -> None:
    code = 98
    try:
        work()
        code = 0
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    except BaseException as error:
        sys.stderr.write(f"escaped: {error!r}\n")
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


class Operations:
    """Counts what this process does to the files of `place` and over HTTP, and may end it.

    `counted` is shared memory: all operations, and those of one save. The second are counted only
    while the checkpoint of step 3 is saved and pushed and that of step 1 retired, and they include
    the writes by native code and the fsyncs.
    """

    def __init__(self, place: Place, counted: mmap.mmap | None = None) -> None:
        self._folders = (str(place.folder / "scratch"), str(place.folder / "out"))
        self._counted = counted
        self._last, self._only_saves = 0, False
        self._in_save = False
        self._all = self._of_save = 0

    def count(self) -> None:
        self._watch()
        self._watch_saves()

    def kill_before(self, number: int, of_save: bool) -> None:
        """SIGKILL this process before its `number`-th operation, or its `number`-th of the save."""
        self._last, self._only_saves = number, of_save
        self._watch()
        if of_save:
            self._watch_saves()

    def _reached(self, *, only_in_save: bool = False) -> None:
        self._all += not only_in_save
        self._of_save += self._in_save
        if self._counted is not None:
            self._counted[:16] = self._all.to_bytes(8) + self._of_save.to_bytes(8)
        if self._last and self._last == (self._of_save if self._only_saves else self._all):
            os.kill(os.getpid(), signal.SIGKILL)

    def _watch(self) -> None:
        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in EVENTS:
                return
            reads = event == "open" and not (
                isinstance(arguments[1], str) and set(arguments[1]) & {*"wax+"}
            )
            ours = not reads and str(arguments[0]).startswith(self._folders)
            if event == "http.client.send" or ours:
                self._reached()

        sys.addaudithook(hook)

    def _watch_saves(self) -> None:
        from trainer.checkpoints import Checkpoints
        from trainer.train import resumable

        def first(action: Callable[..., Any]) -> Callable[..., Any]:
            def reached_first(*arguments: Any, **named: Any) -> Any:
                self._reached(only_in_save=True)
                return action(*arguments, **named)

            return reached_first

        os.fsync = first(os.fsync)
        resumable.save_file = first(resumable.save_file)
        save = Checkpoints.save

        def save_and_push(own: Checkpoints, step: int, write: Callable[[Path], None]) -> Path:
            self._in_save = step == 3
            saved = save(own, step, write)
            own.finish()
            self._in_save = False
            return saved

        Checkpoints.save = save_and_push  # type: ignore[method-assign]


class Tally:
    """Counts how attempts and series ended, and what went wrong."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_s = 0.0

    def must(self, holds: bool, what: str) -> None:
        self.ended["right" if holds else "wrong"] += 1
        if not holds:
            self.wrong.append(what)
            print(f"  WRONG {what[:500]}", flush=True)

    def add(self, other: "Tally") -> None:
        self.ended += other.ended
        self.wrong += other.wrong
        self.slowest_s = max(self.slowest_s, other.slowest_s)


def finish(place: Place, tally: Tally, expected: bytes, what: str) -> None:
    """Start `place` until it is done; it must end in the `expected` weights."""
    for _ in range(MOST_ATTEMPTS):
        code = place.attempt()
        if code == 0:
            tally.must(place.weights() == expected, f"{what}: other weights")
            return
        if code not in RETRYABLE:
            tally.must(False, f"{what}: exit {code}: {place.said()}")
            return
    tally.must(False, f"{what}: never done: {place.said()}")


def kills(soak: "Soak", count: int) -> None:
    """SIGKILL at random instants: each series is killed until it is done."""

    def series(kills: int) -> None:
        while soak.tally.ended["killed"] < kills:
            with soak.place() as place:
                kill_until_done(soak, place, kills)
                finish(place, soak.tally, soak.expected, "after kills")

    shares = [len(range(first, count, soak.jobs)) for first in range(soak.jobs)]
    soak.each(filter(None, shares), series)


def kill_until_done(soak: "Soak", place: Place, kills: int) -> None:
    for _ in range(MOST_ATTEMPTS):
        at = soak.random.uniform(0, soak.duration_s * 1.1)
        code = place.attempt(kill_after_s=at)
        if code == 0 or soak.tally.ended["killed"] >= kills:
            return
        soak.tally.ended["killed"] += 1
        if code not in RETRYABLE:
            soak.tally.must(False, f"killed after {at:.2f} s: exit {code}: {place.said()}")


def operations(soak: "Soak", count: int) -> None:
    """SIGKILL before every file operation and request of a run, or before about `count` of them."""

    def one(number: int) -> None:
        with soak.place() as place:
            kill_before(soak, place, number, of_save=False)

    soak.each(spread(soak, soak.operations, count), one)


def saves(soak: "Soak", count: int) -> None:
    """The same in one save, fsyncs and the writes by native code included."""

    def one(number: int) -> None:
        with soak.place() as place:
            kill_before(soak, place, number, of_save=True)

    soak.each(spread(soak, soak.operations_of_save, count), one)


def spread(soak: "Soak", operations: int, count: int) -> Iterable[int]:
    """`count` numbers of operations, or all of them and one that no run reaches."""
    step = max(1, operations // count) if count else 1
    last = operations if count else operations * 21 // 20 + 1  # not every run has equally many
    return range(1 + soak.random.randrange(step), last + 1, step)


def kill_before(soak: "Soak", place: Place, number: int, *, of_save: bool) -> None:
    code = place.attempt(kill_before=number, of_save=of_save)
    if code == 0:
        soak.tally.must(place.weights() == soak.expected, "undisturbed: other weights")
        return
    soak.tally.ended["killed"] += 1
    if of_save and soak.random.random() < 0.5:  # as on a fresh node
        shutil.rmtree(place.folder / "scratch", ignore_errors=True)
    what = f"killed before operation {number}{' of a save' * of_save}"
    finish(place, soak.tally, soak.expected, what)


def signals(soak: "Soak", count: int) -> None:
    """SIGTERM at random instants in a process that is PID 1 of its namespace."""
    durations = {False: soak.duration_s, True: soak.duration_from_the_start_s() if count > 4 else 0}

    def one(number: int) -> None:
        from_the_start = number % 5 == 4
        with soak.place() as place:
            at = soak.random.uniform(0.05, durations[from_the_start])
            signal_after(soak, place, at, from_the_start)

    soak.each(range(count), one)
    print(f"  the slowest took {soak.tally.slowest_s:.1f} s to stop", flush=True)


def signal_after(soak: "Soak", place: Place, at: float, from_the_start: bool) -> None:
    what = f"SIGTERM after {at:.2f} s{' from the start' * from_the_start}"
    held = place.folder / "held"
    child = place.start(lambda: mark_hold(held), as_pid_1=True, from_the_start=from_the_start)
    time.sleep(at)
    if place.finished():
        soak.tally.must(child.wait() == 0, f"{what}: too late: {place.said()}")
        return
    signalled = time.monotonic()
    child.signal(signal.SIGTERM)
    late = held.exists()
    code = child.wait()
    took_s = time.monotonic() - signalled
    soak.tally.ended["signalled"] += 1
    soak.tally.ended[f"exit {code}"] += 1
    soak.tally.slowest_s = max(soak.tally.slowest_s, took_s)
    finished = place.weights() is not None
    # One that came while the manifest was written is too late to stop anything; one that got lost
    # would let the rest of the run follow.
    late |= took_s < (3 if from_the_start else 1)
    right = (code == 33 and not finished) or (code == 0 and finished and late)
    soak.tally.must(right, f"{what}: exit {code} {took_s:.1f} s later, {finished=}")
    finish(place, soak.tally, soak.expected, what)


def mark_hold(mark: Path) -> None:
    """Leave `mark` once a signal comes too late to keep the run from being published."""
    from trainer import stopping

    hold = stopping.hold

    def hold_and_mark() -> None:
        hold()
        mark.touch()

    stopping.hold = hold_and_mark


def damage(soak: "Soak", count: int) -> None:
    """Damage each file of a stopped run, on disk and in the output, then start it again."""
    with soak.place() as origin:
        origin.attempt(kill_before=soak.operations * 2 // 3)
        cases = [(name, how) for name in origin.files() for how in DAMAGE]
        soak.random.shuffle(cases)

        def one(case: tuple[str, str]) -> None:
            name, how = case
            with soak.place() as place:
                place.copy(origin)
                place.damage(name, how)
                code = place.attempt()
                soak.tally.ended[f"exit {code}"] += 1
                same = code == 0 and place.weights() == soak.expected
                loud = code not in (0, 98) and not place.published()
                soak.tally.must(same or loud, f"{name} {how}: exit {code}: {place.said()}")

        soak.each(cases[: count or None], one)


def spoilt(data: bytes, how: str) -> bytes | None:
    """`data` after `how` happened to it; None when it is gone."""
    middle = len(data) // 2
    if how == "flipped" and data:
        return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
    return {"missing": None, "half": data[:middle]}.get(how, b"")


def publishing(soak: "Soak", count: int) -> None:
    """SIGKILL in the last operations; what a reader finds is nothing or everything."""

    def one(_: int) -> None:
        with soak.place() as place:
            number = soak.operations - soak.random.randrange(soak.operations // 3)
            child = place.start(lambda: Operations(place).kill_before(number, False))
            while not child.ended():
                time.sleep(0.005)
                soak.tally.ended["reads"] += 1
                with contextlib.suppress(FileNotFoundError):
                    weights = place.weights()
                    soak.tally.must(weights in (None, soak.expected), "a partial read")
            soak.tally.ended[f"exit {child.wait()}"] += 1
            finish(place, soak.tally, soak.expected, f"killed before operation {number}")

    soak.each(range(count), one)


def races(soak: "Soak", count: int) -> None:
    """Two jobs with one run id, in scratch folders of their own.

    The second wants the same, or ends in other weights, or has another seed, with and without
    RESUME=must.
    """
    kinds = ("same", "weights", "seed", "must")
    changes = {"seed": {"SEED": "7"}, "must": {"SEED": "7", "RESUME": "must"}}

    def one(pair: int) -> None:
        kind = kinds[pair % len(kinds)]
        with soak.place(RUN_ID="shared") as place:
            one = place.start()
            time.sleep(soak.random.uniform(0, 1 if kind == "same" else 0.3))
            two = place.start(
                spoil_weights if kind == "weights" else lambda: None,
                SCRATCH_DIR=str(place.folder / "other"),
                **changes.get(kind, {}),
            )
            codes = (one.wait(), two.wait())
            soak.tally.ended[f"{kind}: exits {codes}"] += 1
            found = {run: files[WEIGHTS] for run, files in place.published().items()}
            ours = [run for run, weights in found.items() if weights == soak.expected]
            if kind == "weights":  # exactly one is published, and the other one says so
                right = codes == ((0, 14) if ours else (14, 0)) and list(found) == ["shared"]
                right &= "with other weights" in (place.folder / "log").read_text()
            else:
                right = codes == ((0, 2) if kind == "must" else (0, 0)) and len(ours) == 1
                right &= len(found) == (2 if kind == "seed" else 1)
            what = f"race {pair}, {kind}: exits {codes}, {[*found]}, ours {ours}"
            soak.tally.must(right, f"{what}: {place.said()}")

    soak.each(range(count), one)


def spoil_weights() -> None:
    """Let this process end in other weights, as another kind of device might."""
    from trainer import artifacts

    save = artifacts.save_adapter

    def spoil_and_save(model: Any, *arguments: Any) -> None:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data *= 1.001  # another adapter, as good as the first
        save(model, *arguments)

    artifacts.save_adapter = spoil_and_save


def disks(soak: "Soak", count: int) -> None:
    """Disks of many sizes for scratch and output, then read-only: the right code, and on after."""

    def one(number: int) -> None:
        size_kib = 8 + round(2 ** (number / count * 12))
        for name in ("scratch",) if soak.bucket_name else ("scratch", "out"):
            with soak.place() as place, mounted(place.folder / name, size_kib) as remount:
                what = f"{name} of {size_kib} KiB"
                code = place.attempt()
                soak.tally.ended[f"{name}: exit {code}"] += 1
                said = code == 0 or (code == 1 and "make room" in place.said())
                soak.tally.must(said, f"{what}: exit {code}: {place.said()}")
                remount("size=64m,ro")
                code = place.attempt()
                said = code == 11 and f"/{name}" in place.said()
                soak.tally.must(said, f"{what}, read-only: exit {code}: {place.said()}")
                remount("rw")
                finish(place, soak.tally, soak.expected, f"after {what}")

    soak.each(range(count), one)


@contextlib.contextmanager
def mounted(disk: Path, size_kib: int) -> Iterator[Callable[[str], None]]:
    """A new disk at `disk`; gives what mounts it with other options."""

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, str(disk)], check=True)

    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def server(soak: "Soak", count: int) -> None:
    """The S3 server fails for some seconds while a run is under way, and comes back."""

    def control(*words: str) -> None:
        command = [os.environ["S3_SERVER"], *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    failures = (("crash", "start"), ("freeze", "thaw"), ("limit 60", "limit off"))
    for number in range(count):
        fail, mend = failures[number % len(failures)]
        with soak.place(STORAGE_RETRY_MINUTES="3") as place:
            child = place.start()
            time.sleep(soak.random.uniform(0, soak.duration_s))
            control(*fail.split())
            time.sleep(soak.random.uniform(1, 8))
            control(*mend.split())
            code = child.wait()
            soak.tally.ended[f"{fail.split()[0]}: exit {code}"] += 1
            soak.tally.must(code == 0, f"{fail}: exit {code}: {place.said()}")
            finish(place, soak.tally, soak.expected, f"after {fail}")


def faults(soak: "Soak", count: int) -> None:
    """A proxy spoils requests while a run is under way; some runs may retry, some may not."""

    def one(number: int) -> None:
        minutes = ("0", "0.05", "3")[number % 3]
        with (
            fault_proxy() as (endpoint, set_rules),
            soak.place(STORAGE_RETRY_MINUTES=minutes, RUN_ID="spoilt") as place,
        ):
            rules = [random_rule(soak.random, place) for _ in range(soak.random.randint(3, 8))]
            set_rules(rules)
            direct = place.variables.copy()
            place.variables["AWS_ENDPOINT_URL_S3"] = endpoint
            code = place.start(shorten_timeouts).wait()
            place.variables = direct
            soak.tally.ended[f"retried for {minutes} min: exit {code}"] += 1
            right = code == 0 or (code == 12 and minutes != "3")
            soak.tally.must(right, f"exit {code}: {place.said()} with {rules}")
            if soak.random.random() < 0.5:  # as on a fresh node
                shutil.rmtree(place.folder / "scratch", ignore_errors=True)
            finish(place, soak.tally, soak.expected, f"after {rules}")

    soak.each(range(count), one)


def random_rule(random: random.Random, place: Place) -> dict[str, Any]:
    """Spoil some requests of one kind, mostly those of checkpoints."""
    objects = f"/{place.bucket_name}/{place.prefix}"
    checkpoints = f"{objects}spoilt/checkpoints/"
    match = random.choice(
        [f"PUT {checkpoints}"] * 3
        + [f"{method} {objects}" for method in ("PUT", "GET", "DELETE")]
        + [f"GET /{place.bucket_name}?"]
    )
    limits = random.choice(
        (
            {"kind": "slowdown"},
            {"kind": "latency", "s": 0.3},
            {"kind": "hang", "s": 3},
            {"kind": "reset_req", "after": random.choice((1, 100, 20_000))},
            {"kind": "truncate", "after": random.choice((1, 100))},
        )
    )
    return {"match": match, "n": random.randint(1, 6), **limits}


def shorten_timeouts() -> None:
    """So that a request without an answer costs one second."""
    from trainer.storage import bucket

    bucket.READ_TIMEOUT_S = 1


@contextlib.contextmanager
def fault_proxy() -> Iterator[tuple[str, Callable[[list[dict[str, Any]]], None]]]:
    """A proxy before the server: its endpoint, and what sets its rules."""
    upstream = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).port
    port = unused_port()
    endpoint = f"http://localhost:{port}"

    def set_rules(rules: list[dict[str, Any]]) -> None:
        urllib.request.urlopen(endpoint + "/_faults", data=json.dumps(rules).encode()).close()

    command = [sys.executable, os.environ["S3_FAULT_PROXY"], str(port), str(upstream)]
    process = subprocess.Popen(command)
    try:
        wait_until_open(port)
        yield endpoint, set_rules
    finally:
        process.kill()
        process.wait()


class Soak:
    """What the scenarios share: a seed, the undisturbed result and places to work in.

    `operations` and `operations_of_save` are how many there are in an undisturbed run.
    """

    def __init__(self, seed: int, use_s3: bool, jobs: int) -> None:
        self._seed = seed
        self.jobs = jobs
        self.random = random.Random(seed)
        self.tally = Tally()
        self.bucket_name = new_bucket() if use_s3 else ""
        counted = mmap.mmap(-1, 16)
        with contextlib.ExitStack() as places:
            reference = [places.enter_context(self.place()) for _ in range(max(jobs, 2))]
            started = time.monotonic()
            children = [
                place.start(
                    lambda p=place: Operations(p, counted).count() if p is reference[0] else None
                )
                for place in reference
            ]
            assert [child.wait() for child in children] == [0] * len(children), reference[0].said()
            self.duration_s = time.monotonic() - started
            weights = {place.weights() for place in reference}
            assert len(weights) == 1 and None not in weights, (
                "undisturbed runs end in other weights"
            )
            self.expected = weights.pop()
        self.operations = int.from_bytes(counted[:8])
        self.operations_of_save = int.from_bytes(counted[8:16])

    def each(self, cases: Iterable[Any], work: Callable[[Any], None]) -> None:
        """`work` of every case, as many at once as there are jobs; its tally is added to ours."""
        numbered = list(enumerate(cases))
        workers = [self._fork(numbered[first :: self.jobs], work) for first in range(self.jobs)]
        for child, reader in workers:
            with os.fdopen(reader, "rb") as results:
                while line := results.readline():
                    tally = Tally()
                    ended, tally.wrong, tally.slowest_s = json.loads(line)
                    tally.ended.update(ended)
                    self.tally.add(tally)
            if code := child.wait():
                self.tally.must(False, f"the soak itself ended with {code}")

    def _fork(
        self, numbered: list[tuple[int, Any]], work: Callable[[Any], None]
    ) -> tuple["Child", int]:
        """A process that does these cases and writes what it counted."""
        reader, writer = os.pipe()

        def run() -> None:
            os.close(reader)
            for number, case in numbered:
                self.random = random.Random(f"{self._seed} {work.__qualname__} {number}")
                self.tally = Tally()
                try:
                    work(case)
                finally:
                    counted = [self.tally.ended, self.tally.wrong, self.tally.slowest_s]
                    os.write(writer, json.dumps(counted).encode() + b"\n")

        child = fork(run)
        os.close(writer)
        return child, reader

    @contextlib.contextmanager
    def place(self, **changes: str) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            write_records(Path(folder) / "data" / "questions.jsonl")
            place = Place(Path(folder), self.bucket_name, **changes)
            yield place
            if place.bucket_name:
                place.bucket.objects.filter(Prefix=place.prefix).delete()

    def duration_from_the_start_s(self) -> float:
        """Of an undisturbed run with the interpreter's start and the imports."""
        with self.place() as place:
            started = time.monotonic()
            assert place.start(from_the_start=True).wait() == 0, place.said()
            return time.monotonic() - started

    def close(self) -> None:
        if self.bucket_name:
            bucket = bucket_in(self.bucket_name, os.getpid())
            bucket.objects.all().delete()
            bucket.delete()


def new_bucket() -> str:
    """The name of a bucket with data in it."""
    name = f"soak-{secrets.token_hex(6)}"
    bucket = bucket_in(name, os.getpid())
    bucket.create()
    with tempfile.TemporaryDirectory() as folder:
        data = write_records(Path(folder) / "questions.jsonl").read_bytes()
    bucket.put_object(Key="data/questions.jsonl", Body=data)
    return name


SCENARIOS = (kills, operations, saves, signals, damage, publishing, races, disks, server, faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO[:COUNT]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--s3", action="store_true")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help="cases side by side")
    chosen = parser.parse_args()
    known = {scenario.__name__: scenario for scenario in SCENARIOS}
    wanted = [scenario.partition(":")[::2] for scenario in chosen.scenarios]
    if unknown := [name for name, _ in wanted if name not in known]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does it
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // chosen.jobs)))
    preload()
    soak = Soak(chosen.seed, chosen.s3, chosen.jobs)
    wrong = 0
    try:
        for name, count in wanted:
            soak.tally = Tally()
            started = time.monotonic()
            try:
                known[name](soak, int(count or 0))
            finally:  # also when it was stopped
                ended = ", ".join(f"{what} {n}" for what, n in sorted(soak.tally.ended.items()))
                where = f"{'s3' if chosen.s3 else 'local'}, seed {chosen.seed}"
                seconds = time.monotonic() - started
                print(f"{name} ({where}): {ended} in {seconds:.0f} s", flush=True)
            wrong += len(soak.tally.wrong)
    finally:
        soak.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
