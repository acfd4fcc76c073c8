"""Where a run is attempted again and again, and what is found there."""

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from support.jobs import ROOT, variables, write_records

from soaking.operations import Operations
from soaking.processes import Child, fork

WEIGHTS = "adapter/adapter_model.safetensors"
# The fifth step ends an epoch.
SMALL = {"MAX_STEPS": "6", "CHECKPOINT_EVERY": "1", "LOG_LEVEL": "WARNING"}

LEASE_S = 3.0  # of a killed publisher; a fresh node waits for so long


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
                Operations(self.folder).kill_before(kill_before, of_save)

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
    ) -> Child:
        """Start the job; `from_the_start` as a new interpreter that imports everything itself."""

        def job() -> None:
            from trainer import cli
            from trainer.runtime import signals
            from trainer.storage import lease

            os.environ.update(self.variables | {f"QLORA_{k}": v for k, v in changes.items()})
            log = (self.folder / "log").open("a")
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            if from_the_start:
                os.chdir(ROOT)
                os.execv(sys.executable, [sys.executable, "entrypoint.py"])
            lease.LEASE_S, lease.RENEWED_S = LEASE_S, LEASE_S / 6
            prepare()
            sys.argv = ["entrypoint.py"]
            signals.install()
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

    def has(self, name: str) -> bool:
        """Whether the output has an object of this name."""
        from trainer.storage import open_store

        return (
            open_store(self.variables["QLORA_OUTPUT_URI"], retry_minutes=0).read(name) is not None
        )

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
        """The last line that the job printed, or all from where a crash is told."""
        text = (self.folder / "log").read_text()
        if (crash := text.find("Fatal Python error")) >= 0:
            return text[crash:].partition("Extension modules")[0]
        return text.strip().rpartition("\n")[2]


def spoilt(data: bytes, how: str) -> bytes | None:
    """`data` after `how` happened to it; None when it is gone."""
    middle = len(data) // 2
    if how == "flipped" and data:
        return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
    return {"missing": None, "half": data[:middle]}.get(how, b"")


def new_bucket() -> str:
    """The name of a bucket with data in it."""
    name = f"soak-{secrets.token_hex(6)}"
    bucket = bucket_in(name, os.getpid())
    bucket.create()
    with tempfile.TemporaryDirectory() as folder:
        data = write_records(Path(folder) / "questions.jsonl").read_bytes()
    bucket.put_object(Key="data/questions.jsonl", Body=data)
    return name
