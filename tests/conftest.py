"""A fresh bucket on a real S3 server, and a proxy that spoils what passes to it."""

import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.buckets import fresh_bucket, needs
from support.network import unused_port, wait_until_open

# As the command does it, before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes side by side, and products too small to be worth a second thread.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    # Before anything imports Triton: its interpreter runs the kernels on a CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")


# The files that start most jobs; begun last, one of them would run alone at the end.
LONGEST = ("test_interruption", "test_workers", "test_job", "test_kubernetes", "test_readme")
LONGEST += ("test_two_hosts", "test_hub_push", "test_job_s3", "test_gate", "test_secrets")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def usual_log_levels() -> None:
    """A command that an earlier test ran in this process set them for all that follow."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("trainer").setLevel(logging.NOTSET)


@pytest.fixture(params=["http", "tls"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty boto3 Bucket, reached over HTTP and then over TLS; removed afterwards."""
    needs("AWS_ENDPOINT_URL_S3")
    if request.param == "tls":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", needs("S3_TLS_ENDPOINT_URL"))
        monkeypatch.setenv("AWS_CA_BUNDLE", needs("S3_TLS_CA_BUNDLE"))
    with fresh_bucket() as fresh:
        yield fresh


@dataclass
class Faults:
    """A proxy in front of the server; `bucket` reaches the server past it."""

    bucket: Any
    port: int

    def add(self, match: str, kind: str, times: int = 1, **limits: float) -> None:
        """Spoil the next `times` requests whose first line starts with `match`.

        `kind` is slowdown, reset_req or truncate (after=bytes), latency or hang (s=seconds).
        """
        rule = {"match": match, "kind": kind, "n": times, **limits}
        url = f"http://127.0.0.1:{self.port}/_faults"
        urllib.request.urlopen(url, data=json.dumps([rule]).encode()).close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The environment points at a fault proxy in front of the server."""
    proxy = needs("S3_FAULT_PROXY")
    upstream = urlsplit(needs("AWS_ENDPOINT_URL_S3")).port
    port = unused_port()
    process = subprocess.Popen([sys.executable, proxy, str(port), str(upstream)])
    try:
        with fresh_bucket() as fresh:
            wait_until_open(port)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://localhost:{port}")
            yield Faults(fresh, port)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB."""
    disk = tmp_path / "tiny"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.check_call(["umount", str(disk)])
