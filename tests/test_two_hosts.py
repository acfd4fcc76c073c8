"""Two hosts train together, and what happens when the link between them is cut.

The hosts are network namespaces with addresses of their own and a virtual cable; making them needs
root and iproute2.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import ROOT, adapter_bytes, start, variables
from test_workers import ONE_THREAD, SETTINGS, Processes, ends, wait_for_step

HOSTS = {"qlora-a": "10.77.0.1", "qlora-b": "10.77.0.2"}
STEPS = "40"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def link(state: str) -> None:
    ip("-n", "qlora-b", "link", "set", "eth0", state)


@pytest.fixture
def hosts() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    try:
        for name in HOSTS:
            ip("netns", "add", name)
        ip(
            "-n",
            "qlora-a",
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            "qlora-b",
        )
        for name, address in HOSTS.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        yield
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start_on_hosts(folder: Path, **changes: str) -> Processes:
    workers = []
    for rank, name in enumerate(HOSTS):
        environment = ONE_THREAD | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "29500"}
        environment |= {"MASTER_ADDR": HOSTS["qlora-a"], "GLOO_SOCKET_IFNAME": "eth0"}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
        workers.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "entrypoint.py"],
                cwd=ROOT,
                env=clean | environment | variables(folder, **SETTINGS | changes),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def test_a_link_that_is_cut_for_a_while_changes_no_byte(hosts: None, tmp_path: Path) -> None:
    workers = start_on_hosts(tmp_path, MAX_STEPS=STEPS)
    wait_for_step(workers[0], 5)
    link("down")
    time.sleep(20)
    assert [worker.poll() for worker in workers] == [None, None]
    link("up")
    assert ends(workers) == [0, 0], workers[0].stderr.read()
    alone = start(tmp_path / "alone", environment=ONE_THREAD, **SETTINGS | {"MAX_STEPS": STEPS})
    assert ends([alone]) == [0]
    together, single = (
        next(folder.glob("out/*/manifest.json")).parent for folder in (tmp_path, tmp_path / "alone")
    )
    assert adapter_bytes(together) == adapter_bytes(single)


def test_a_link_that_stays_cut_ends_both_in_time(hosts: None, tmp_path: Path) -> None:
    workers = start_on_hosts(tmp_path, MAX_STEPS="1000", STORAGE_RETRY_MINUTES="0.25")
    wait_for_step(workers[0], 5)
    link("down")
    began = time.monotonic()
    assert ends(workers) == [12, 12]
    assert time.monotonic() - began < 90
    assert all("cannot be reached" in worker.stderr.read() for worker in workers)
