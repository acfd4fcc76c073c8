"""Every fault a network and a server can have, many times over, with the figures at the end.

    python tests/soak_storage.py [TRIES]        needs the S3 server of AWS_ENDPOINT_URL_S3

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

from spoiler import Spoiler

from trainer.errors import JobError, NotAllowedError, SettingsError, UnreachableError
from trainer.storage import BucketStore
from trainer.storage import bucket as bucket_room

SIZES = (1_000, 1_000_000, bucket_room.PART_BYTES + 1_000_000)
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


def trial(
    spoiler: Spoiler, store: BucketStore, fault: str, size: int, way: str, folder: Path
) -> str:
    """`right`, `silent`, or what was wrong."""
    kind, times, wanted = FAULTS[fault]
    name, data = secrets.token_hex(8), secrets.token_bytes(size)
    up, down = folder / "up", folder / "down"
    up.write_bytes(data)
    down.unlink(missing_ok=True)
    method = "GET" if way == "down" else ("POST" if kind == "200 error" else "P")
    when = lambda line: line.startswith(method) and name in line and "uploads " not in line  # noqa: E731
    if way == "down":
        store.upload(up, name)
        (listed,) = store.list(name)
    spoiler.spoil(kind, times, when)
    try:
        if way == "down":
            store.download(listed, down)
        else:
            store.upload(up, name)
        outcome = None
    except JobError as error:
        outcome = type(error)
    finally:
        spoiler.spoil("", 0, when)
    if outcome is None and way == "up":
        (listed,) = store.list(name)
        store.download(listed, down)
    store.delete([name])
    if outcome is None and down.read_bytes() != data:
        return "silent"
    return "right" if outcome is wanted else f"ended with {outcome and outcome.__name__}"


@contextmanager
def certificate() -> Iterator[Path]:
    """A certificate for localhost and its key in one file; its own CA."""
    with tempfile.TemporaryDirectory() as folder:
        key, pem = Path(folder, "key"), Path(folder, "pem")
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        subprocess.run([*make, "-keyout", key, "-out", pem], check=True, capture_output=True)
        pem.write_text(pem.read_text() + key.read_text())
        yield pem


@contextmanager
def spoiled(scheme: str, upstream: int, bucket: str) -> Iterator[tuple[Spoiler, BucketStore]]:
    """The bucket behind a spoiler, reached as the environment then says."""
    before = dict(os.environ)
    with certificate() as pem:
        spoiler = Spoiler(upstream, str(pem) if scheme == "https" else "")
        os.environ["AWS_ENDPOINT_URL_S3"] = f"{scheme}://localhost:{spoiler.port}"
        os.environ["AWS_CA_BUNDLE"] = str(pem)
        try:
            yield spoiler, BucketStore(bucket, "soak", retry_minutes=0.3)
        finally:
            spoiler.close()
            os.environ.clear()
            os.environ.update(before)


def unknown_ca(spoiler: Spoiler, bucket: str) -> str:
    os.environ["AWS_ENDPOINT_URL_S3"] = f"https://localhost:{spoiler.port}"
    del os.environ["AWS_CA_BUNDLE"]
    try:
        BucketStore(bucket, retry_minutes=0.3).list()
    except UnreachableError as error:
        return "right" if "TLS" in str(error) else str(error)
    return "silent"


def matrix(
    bucket: str, schemes: tuple[str, ...], sizes: tuple[int, ...], tries: int
) -> Counter[Any]:
    """How each trial ended: (scheme, fault, way, size, outcome) with its count."""
    bucket_room.READ_TIMEOUT_S = 3
    upstream = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).port or 80
    found: Counter[Any] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for scheme in schemes:
            for fault in FAULTS:
                with spoiled(scheme, upstream, bucket) as (spoiler, store):
                    # A fault that stays costs its whole retry time.
                    store._retry_minutes = 0.02 if FAULTS[fault][1] == FOREVER else 0.3
                    for size in sizes:
                        for way in ("up", "down"):
                            for _ in range(tries):
                                outcome = trial(spoiler, store, fault, size, way, Path(folder))
                                found[scheme, fault, way, size, outcome] += 1
            with spoiled(scheme, upstream, bucket) as (spoiler, _):
                found[scheme, UNKNOWN_CA, "", 0, unknown_ca(spoiler, bucket)] += 1
    return found


def main() -> None:
    import boto3

    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    bucket = f"soak-{secrets.token_hex(6)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    started = time.monotonic()
    found = matrix(bucket, ("http", "https"), SIZES, tries)
    for (scheme, fault, way, size, outcome), count in found.items():
        if outcome != "right":
            print(f"WRONG {scheme} {fault}, {way}, {size} bytes: {outcome} ({count} times)")
    for fault in [*FAULTS, UNKNOWN_CA]:
        right = sum(n for key, n in found.items() if key[1] == fault and key[4] == "right")
        print(f"{fault}: {right} of {sum(n for key, n in found.items() if key[1] == fault)} right")
    silent = sum(n for key, n in found.items() if key[4] == "silent")
    wrong = sum(n for key, n in found.items() if key[4] != "right")
    seconds = time.monotonic() - started
    print(f"{sum(found.values())} trials in {seconds:.0f} s, {wrong} wrong, {silent} silent")
    boto3.resource("s3").Bucket(bucket).objects.all().delete()
    boto3.client("s3").delete_bucket(Bucket=bucket)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
