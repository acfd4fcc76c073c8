"""Runs that are killed, starved and damaged on purpose; every one must end the same or say why not.

    python tests/soak.py kills:200 operations signals:100

    kills         SIGKILL at random instants
    operations    SIGKILL before every file operation of a run, or before so many of them
    signals       SIGTERM in all phases, as PID 1 of a namespace
    damage        every file of a stopped run: missing, empty, half, a bit flipped
    publishing    SIGKILL while publishing, with a reader polling
    races         two jobs, one run id
    disks         scratch disks of many sizes
    server        the S3 server crashes, freezes, answers SlowDown

`server` needs S3_SERVER, a command that takes start, crash, freeze, thaw and limit. With `--s3`
checkpoints and results go to a bucket (AWS_* name the server). The job's real code
runs in processes forked from this one, which has imported everything and computed nothing: an
attempt then costs seconds less. Exits with 1 if any run ended in a way it must not.
"""

import argparse
import contextlib
import ctypes
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobs import ROOT, variables, write_records

RETRYABLE = {1, 12, 33, -signal.SIGKILL}
MOST_ATTEMPTS = 60
DAMAGE = ("missing", "empty", "half", "flipped")
CLONE_NEWPID = 0x20000000
EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "http.client.send"}
SMALL = {"MAX_STEPS": "4", "CHECKPOINT_EVERY": "1", "LOG_LEVEL": "WARNING"}


def preload() -> None:
    """Import everything the job imports; start no thread and compute nothing before a fork."""
    import boto3  # noqa: F401

    import trainer.job
    import trainer.train  # noqa: F401


class Place:
    """Where one series of attempts trains: its own scratch, output and run."""

    def __init__(self, folder: Path, bucket: Any, **changes: str) -> None:
        self.folder = folder
        self.bucket = bucket
        self.prefix = f"{folder.name}-{secrets.token_hex(4)}/"
        if bucket is not None:
            changes = {"OUTPUT_URI": f"s3://{bucket.name}/{self.prefix}"} | changes
        self.variables = variables(folder, **(SMALL | changes))

    def attempt(
        self,
        *,
        kill_after_s: float | None = None,
        number: signal.Signals = signal.SIGKILL,
        kill_before: int | None = None,
        as_pid_1: bool = False,
        **changes: str,
    ) -> int:
        """One start of the job; its exit code, negative for a signal."""
        child = fork(lambda: self._job(kill_before, changes), as_pid_1)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.target, number)
        return child.wait()

    def _job(self, kill_before: int | None, changes: dict[str, str]) -> None:
        from trainer import cli, stopping

        os.environ.update(self.variables | {f"QLORA_{k}": v for k, v in changes.items()})
        log = (self.folder / "log").open("a")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        if kill_before is not None:
            kill_at_operation(kill_before, (str(self.folder / "scratch"), str(self.folder / "out")))
        sys.argv = ["entrypoint.py"]
        stopping.install()
        cli.main()

    def published(self) -> dict[str, bytes] | None:
        """The objects of the finished run, checked against its manifest; None before that."""
        from trainer.storage import fetch_verified, open_store, read_manifest

        store = open_store(self.variables["QLORA_OUTPUT_URI"], retry_minutes=0)
        names = {stored.name for stored in store.list() if stored.name.endswith("/manifest.json")}
        runs = [n.split("/")[0] for n in names if n.count("/") == 1]
        if not runs:
            return None
        into = Path(tempfile.mkdtemp(dir=self.folder))
        assert read_manifest(store, runs[0])
        fetch_verified(store, runs[0], into)
        found = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
        shutil.rmtree(into)
        return found

    def weights(self) -> bytes | None:
        published = self.published()
        return published and published["adapter/adapter_model.safetensors"]

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
        """Spoil one of `files`; one in the bucket is then all there is, as on a fresh node."""
        if name.startswith("s3:"):
            shutil.rmtree(self.folder / "scratch", ignore_errors=True)
            stored = self.bucket.Object(self.prefix + name.removeprefix("s3:"))
            data = spoilt(stored.get()["Body"].read(), how)
            stored.delete() if data is None else stored.put(Body=data)
            return
        path = self.folder / name
        data = spoilt(path.read_bytes(), how)
        path.unlink() if data is None else path.write_bytes(data)

    def _objects(self) -> list[tuple[str, Any]]:
        if self.bucket is None:
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


def kill_at_operation(number: int, folders: tuple[str, ...]) -> None:
    """SIGKILL this process before its `number`-th file operation below `folders` or HTTP send."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in EVENTS:
            return
        reads = event == "open" and not (
            isinstance(arguments[1], str) and set(arguments[1]) & {*"wax+"}
        )
        if event == "http.client.send" or (not reads and str(arguments[0]).startswith(folders)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


class Tally:
    """Counts how attempts and series ended, and what went wrong."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []

    def must(self, holds: bool, what: str) -> None:
        self.ended["right" if holds else "wrong"] += 1
        if not holds:
            self.wrong.append(what)


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
    while soak.tally.ended["killed"] < count:
        with soak.place() as place:
            for _ in range(MOST_ATTEMPTS):
                at = soak.random.uniform(0, soak.duration_s * 1.1)
                code = place.attempt(kill_after_s=at)
                if code == 0 or soak.tally.ended["killed"] >= count:
                    break
                soak.tally.ended["killed"] += 1
                if code not in RETRYABLE:
                    soak.tally.must(False, f"killed after {at:.2f} s: exit {code}: {place.said()}")
            finish(place, soak.tally, soak.expected, "after kills")


def operations(soak: "Soak", count: int) -> None:
    """SIGKILL before the 1st, 2nd, … file operation (and request), until one run is not reached."""
    step = 1 if count == 0 else max(1, soak.operations() // count)
    for number in range(1 + soak.random.randrange(step), 10_000, step):
        with soak.place() as place:
            code = place.attempt(kill_before=number)
            if code == 0:
                soak.tally.must(place.weights() == soak.expected, "undisturbed: other weights")
                return
            soak.tally.ended["killed"] += 1
            finish(place, soak.tally, soak.expected, f"killed before operation {number}")


def signals(soak: "Soak", count: int) -> None:
    """SIGTERM at random instants in a process that is PID 1 of its namespace."""
    for _ in range(count):
        with soak.place() as place:
            at = soak.random.uniform(0, soak.duration_s)
            code = place.attempt(kill_after_s=at, number=signal.SIGTERM, as_pid_1=True)
            soak.tally.ended[f"exit {code}"] += 1
            finished = place.published() is not None
            soak.tally.must(
                code == 33 or (code == 0 and finished), f"SIGTERM after {at:.2f} s: exit {code}"
            )
            soak.tally.must(code == 0 or not finished, f"SIGTERM after {at:.2f} s: published")
            finish(place, soak.tally, soak.expected, f"SIGTERM after {at:.2f} s")


def damage(soak: "Soak", count: int) -> None:
    """Damage each file of a stopped run, on disk and in the store, then start it again."""
    with soak.place() as origin:
        origin.attempt(kill_before=soak.operations() * 2 // 3)
        cases = [(name, how) for name in origin.files() for how in DAMAGE]
        soak.random.shuffle(cases)
        for name, how in cases[: count or None]:
            with soak.place() as place:
                place.copy(origin)
                place.damage(name, how)
                code = place.attempt()
                soak.tally.ended[f"exit {code}"] += 1
                same = code == 0 and place.weights() == soak.expected
                loud = code not in (0, 98) and not place.published()
                soak.tally.must(same or loud, f"{name} {how}: exit {code}: {place.said()}")


def spoilt(data: bytes, how: str) -> bytes | None:
    """`data` after `how` happened to it; None when it is gone."""
    middle = len(data) // 2
    if how == "flipped" and data:
        return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
    return {"missing": None, "half": data[:middle]}.get(how, b"")


def publishing(soak: "Soak", count: int) -> None:
    """SIGKILL in the last operations; what a reader finds is nothing or everything."""
    last = soak.operations()
    for _ in range(count):
        with soak.place() as place:
            number = last - soak.random.randrange(last // 3)
            child = fork(lambda p=place, n=number: p._job(n, {}))  # type: ignore[misc]
            while os.waitid(os.P_PID, child.parent, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.005)
                soak.tally.ended["reads"] += 1
                with contextlib.suppress(FileNotFoundError):
                    weights = place.weights()
                    soak.tally.must(weights in (None, soak.expected), "a partial read")
            soak.tally.ended[f"exit {child.wait()}"] += 1
            finish(place, soak.tally, soak.expected, f"killed before operation {number}")


def races(soak: "Soak", count: int) -> None:
    """Two jobs with one run id, in scratch folders of their own."""
    for pair in range(count):
        with soak.place(RUN_ID="shared", RESUME="auto") as place:
            others = {"SCRATCH_DIR": str(place.folder / "other")}
            one = fork(lambda p=place: p._job(None, {}))  # type: ignore[misc]
            time.sleep(soak.random.uniform(0, 1))
            two = fork(lambda p=place, o=others: p._job(None, o))  # type: ignore[misc]
            codes = {one.wait(), two.wait()}
            soak.tally.ended[f"exits {sorted(codes)}"] += 1
            soak.tally.must(codes == {0}, f"race {pair}: exits {codes}: {place.said()}")
            soak.tally.must(place.weights() == soak.expected, f"race {pair}: mixed")


def disks(soak: "Soak", count: int) -> None:
    """A scratch disk of many sizes: the right code, and on with more room."""
    for number in range(count):
        size_kib = 8 + round(2 ** (number / count * 12))
        with soak.place() as place:
            disk = place.folder / "scratch"
            disk.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(disk)]
            subprocess.run(mount, check=True)
            try:
                code = place.attempt()
                soak.tally.ended[f"exit {code}"] += 1
                soak.tally.must(code in (0, 1), f"{size_kib} KiB: exit {code}: {place.said()}")
                said = "make room" in place.said() or code == 0
                soak.tally.must(said, f"{size_kib} KiB: said {place.said()}")
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                finish(place, soak.tally, soak.expected, f"after {size_kib} KiB")
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
            child = fork(lambda p=place: p._job(None, {}))  # type: ignore[misc]
            time.sleep(soak.random.uniform(0, soak.duration_s))
            control(*fail.split())
            time.sleep(soak.random.uniform(1, 8))
            control(*mend.split())
            code = child.wait()
            soak.tally.ended[f"{fail.split()[0]}: exit {code}"] += 1
            soak.tally.must(code == 0, f"{fail}: exit {code}: {place.said()}")
            finish(place, soak.tally, soak.expected, f"after {fail}")


class Soak:
    """What the scenarios share: a seed, the undisturbed result and places to work in."""

    def __init__(self, seed: int, use_s3: bool) -> None:
        self.random = random.Random(seed)
        self.tally = Tally()
        self.bucket = self._new_bucket() if use_s3 else None
        self._operations = 0
        with self.place(local=True) as place:
            place.attempt()  # the first one also warms the file cache
        with self.place() as place:
            started = time.monotonic()
            code = place.attempt()
            self.duration_s = time.monotonic() - started
            assert code == 0, place.said()
            weights = place.weights()
            assert weights is not None
            self.expected = weights

    @contextlib.contextmanager
    def place(self, *, local: bool = False, **changes: str) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            write_records(Path(folder) / "data" / "questions.jsonl")
            place = Place(Path(folder), None if local else self.bucket, **changes)
            yield place
            if place.bucket is not None:
                place.bucket.objects.filter(Prefix=place.prefix).delete()

    def operations(self) -> int:
        """How many operations an undisturbed run has, found by bisection."""
        low, high = 1, 4096
        while not self._operations and high - low > 1:
            middle = (low + high) // 2
            with self.place() as place:
                if place.attempt(kill_before=middle) == 0:
                    high = middle
                else:
                    low = middle
        self._operations = self._operations or low
        return self._operations

    def close(self) -> None:
        if self.bucket is not None:
            self.bucket.objects.all().delete()
            self.bucket.delete()

    def _new_bucket(self) -> Any:
        import boto3

        bucket = boto3.resource("s3").Bucket(f"soak-{secrets.token_hex(6)}")
        bucket.create()
        return bucket


SCENARIOS = (kills, operations, signals, damage, publishing, races, disks, server)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO[:COUNT]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--s3", action="store_true")
    chosen = parser.parse_args()
    known = {scenario.__name__: scenario for scenario in SCENARIOS}
    wanted = [scenario.partition(":")[::2] for scenario in chosen.scenarios]
    if unknown := [name for name, _ in wanted if name not in known]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does it
    preload()
    soak = Soak(chosen.seed, chosen.s3)
    wrong = 0
    try:
        for name, count in wanted:
            soak.tally = Tally()
            started = time.monotonic()
            known[name](soak, int(count or 0))
            ended = ", ".join(f"{what} {times}" for what, times in sorted(soak.tally.ended.items()))
            where = "s3" if chosen.s3 else "local"
            print(f"{name} ({where}): {ended} in {time.monotonic() - started:.0f} s", flush=True)
            for line in soak.tally.wrong:
                print(f"  WRONG {line[:500]}", flush=True)
            wrong += len(soak.tally.wrong)
    finally:
        soak.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
