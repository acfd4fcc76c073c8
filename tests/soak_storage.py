"""Every fault a network and a server can have, many times over, with the figures at the end.

    python tests/soak_storage.py [TRIES [SCHEME...]]      needs the S3 server of AWS_ENDPOINT_URL_S3

Twelve faults, three sizes, both ways, over HTTP and TLS. A fault that passes has to be waited out
with the right bytes at the end; one that stays has to end with the right error. Anything else is
wrong, and a wrong byte without an error is a silent one.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.spoiler import Spoiler

from trainer.errors import JobError, NotAllowedError, SettingsError, UnreachableError
from trainer.storage.s3 import connection, download
from trainer.storage.s3.store import BucketStore

SIZES = (1_000, 1_000_000, download.RANGE_BYTES + 1_000_000)
TIMEOUT_S = 3
FOREVER = 10**6
# kind of spoiling, how many requests, and the error it must end with (None: the right bytes).
FAULTS: dict[str, tuple[str, int, type[JobError] | None]] = {
    "truncated": ("truncate", 2, None),
    "reset": ("reset", 2, None),
    "early close without length": ("no length", 2, None),
    "bit flip": ("flip", 1, None),
    "503 twice": ("503", 2, None),
    "503 forever": ("503", FOREVER, UnreachableError),
    "hang": ("hang", 2, None),
    "slow": ("slow", 2, None),
    "200 with error on completing": ("200 error", 1, None),
    "wrong region": ("region", FOREVER, SettingsError),
    "expired token": ("expired", FOREVER, NotAllowedError),
    "clock skew": ("skew", FOREVER, NotAllowedError),
}
UNKNOWN_CA = "TLS with an unknown CA"


class Place:
    """A bucket reached directly and, as `store`, through a spoiler."""

    def __init__(self, bucket: str, scheme: str, folder: Path) -> None:
        self._bucket = bucket
        self._scheme = scheme
        self._up, self._down = folder / "up", folder / "down"
        self._direct = BucketStore(bucket, "soak", retry_minutes=2)
        self._certificate = _certificate(folder) if scheme == "https" else ""
        self._spoiler = Spoiler(
            urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).port or 80, self._certificate
        )

    def trial(self, fault: str, size: int, way: str) -> str:
        """`right`, `silent`, or what was wrong."""
        kind, times, wanted = FAULTS[fault]
        self.last_error = ""
        name, data = secrets.token_hex(8), secrets.token_bytes(size)
        self._up.write_bytes(data)
        self._down.unlink(missing_ok=True)
        method = "GET" if way == "down" else ("POST" if kind == "200 error" else "P")
        if way == "down":
            self._direct.upload(self._up, name)
        # The whole retry time passes only where the fault does not.
        store = self._spoiled(0.02 if wanted is UnreachableError else 2)
        meant = lambda line: line.startswith(method) and name in line and "uploads " not in line  # noqa: E731
        self._spoiler.spoil(kind, times, meant)
        outcome = self._ended(store, name, way)
        self._spoiler.spoil("", 0, bool)
        if outcome is None and way == "up":
            self._download(self._direct, name)
        self._direct.delete([name])
        if outcome is None and self._down.read_bytes() != data:
            return "silent"
        return "right" if outcome is wanted else self.last_error or "no error"

    def unknown_ca(self) -> str:
        try:
            self._spoiled(2, ca="").list()
        except UnreachableError as error:
            return "right" if "TLS" in str(error) else str(error)
        return "silent"

    def close(self) -> None:
        self._spoiler.close()

    def _ended(self, store: BucketStore, name: str, way: str) -> type[JobError] | None:
        try:
            if way == "down":
                self._download(store, name)
            else:
                store.upload(self._up, name)
        except JobError as error:
            self.last_error = str(error)
            return type(error)
        return None

    def _download(self, store: BucketStore, name: str) -> None:
        (listed,) = self._direct.list(name)
        store.download(listed, self._down)

    def _spoiled(self, minutes: float, ca: str | None = None) -> BucketStore:
        changed = {"AWS_ENDPOINT_URL_S3": f"{self._scheme}://localhost:{self._spoiler.port}"}
        if ca := self._certificate if ca is None else ca:
            changed["AWS_CA_BUNDLE"] = ca
        with _environment(changed):
            return BucketStore(self._bucket, "soak", retry_minutes=minutes)


def _certificate(folder: Path) -> str:
    """A certificate for localhost and its key in one file; its own CA."""
    key, pem = folder / "key", folder / "pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*make, "-keyout", key, "-out", pem], check=True, capture_output=True)
    pem.write_text(pem.read_text() + key.read_text())
    return str(pem)


@contextmanager
def _environment(changed: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.pop("AWS_CA_BUNDLE", None)
    os.environ.update(changed)
    was, connection.READ_TIMEOUT_S = connection.READ_TIMEOUT_S, TIMEOUT_S
    try:
        yield
    finally:
        connection.READ_TIMEOUT_S = was
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def at(bucket: str, scheme: str) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(bucket, scheme, Path(folder))
        try:
            yield place
        finally:
            place.close()


def matrix(bucket: str, scheme: str, tries: int) -> Counter[Any]:
    """How each trial ended: (scheme, fault, way, size, outcome) with its count."""
    found: Counter[Any] = Counter()
    with at(bucket, scheme) as place:
        for fault in FAULTS:
            for size in SIZES:
                for way in ("up", "down"):
                    for _ in range(tries):
                        found[scheme, fault, way, size, place.trial(fault, size, way)] += 1
        if scheme == "https":
            found[scheme, UNKNOWN_CA, "", 0, place.unknown_ca()] += 1
    return found


def show(found: Counter[Any], seconds: float) -> int:
    """How many were wrong."""
    for (scheme, fault, way, size, outcome), count in found.items():
        if outcome != "right":
            print(f"WRONG {scheme} {fault}, {way}, {size} bytes: {outcome} ({count} times)")
    for fault in dict.fromkeys(key[1] for key in found):
        right = sum(n for key, n in found.items() if key[1] == fault and key[4] == "right")
        print(f"{fault}: {right} of {sum(n for key, n in found.items() if key[1] == fault)} right")
    silent = sum(n for key, n in found.items() if key[4] == "silent")
    wrong = sum(n for key, n in found.items() if key[4] != "right")
    print(f"{sum(found.values())} trials in {seconds:.0f} s, {wrong} wrong, {silent} silent")
    return wrong


def main() -> None:
    import boto3

    tries, *schemes = sys.argv[1:] or ["5"]
    bucket = boto3.resource("s3").create_bucket(Bucket=f"soak-{secrets.token_hex(6)}")
    started, found = time.monotonic(), Counter[Any]()
    for scheme in schemes or ("http", "https"):
        found += matrix(bucket.name, scheme, int(tries))
    wrong = show(found, time.monotonic() - started)
    bucket.objects.all().delete()
    bucket.delete()
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
