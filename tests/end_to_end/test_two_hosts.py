"""Two hosts train together, and what happens when the link between them is cut.

The hosts are network namespaces with addresses of their own and a virtual cable; making them needs
root and iproute2.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.jobs import ROOT, adapter_bytes, start, variables
from support.worker_processes import ONE_THREAD, SETTINGS, Processes, ends, wait_for_step
from transformers import LlamaConfig

from trainer.planner.choose import Execution
from trainer.planner.memory_plan import MemoryPlan
from trainer.planner.scaling import ScalingEstimate

A, B = (f"qlora-{side}-{os.getpid()}" for side in "ab")
HOSTS = {A: "10.77.0.1", B: "10.77.0.2"}
STEPS = "40"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def link(state: str) -> None:
    ip("-n", B, "link", "set", "eth0", state)


@pytest.fixture
def hosts() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    try:
        for name in HOSTS:
            ip("netns", "add", name)
        ip(
            "-n",
            A,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            B,
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
        environment |= {"MASTER_ADDR": HOSTS[A], "GLOO_SOCKET_IFNAME": "eth0"}
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


def sent_bytes(host: str) -> int:
    said = subprocess.check_output(["ip", "-n", host, "-s", "-j", "link", "show", "eth0"])
    return int(json.loads(said)[0]["stats64"]["tx"]["bytes"])


def gradient_bytes() -> float:
    """What `plan` says that one of two workers sends in each step."""
    shape = LlamaConfig.from_pretrained(ROOT / "trainer/builtin/tiny")
    on_q_and_v = shape.num_hidden_layers * 2 * 8 * 2 * shape.hidden_size
    choice = Execution(1, MemoryPlan(0), "")
    return ScalingEstimate(choice, 2, 4, 64, on_q_and_v, 0, 0).gradient_bytes


def test_a_link_that_is_cut_for_a_while_changes_no_byte(hosts: None, tmp_path: Path) -> None:
    """And what goes over it is what `plan` says, with the headers of its packets."""
    workers = start_on_hosts(tmp_path, MAX_STEPS=STEPS)
    wait_for_step(workers[0], 5)
    link("down")
    alone = start(tmp_path / "alone", environment=ONE_THREAD, **SETTINGS | {"MAX_STEPS": STEPS})
    assert ends([alone]) == [0]  # for so long, some ten seconds
    assert [worker.poll() for worker in workers] == [None, None]
    link("up")
    assert ends(workers) == [0, 0], workers[0].stderr.read()
    for host in HOSTS:
        assert 1 < sent_bytes(host) / (int(STEPS) * gradient_bytes()) < 1.5
    together, single = (
        next(folder.glob("out/*/manifest.json")).parent for folder in (tmp_path, tmp_path / "alone")
    )
    assert adapter_bytes(together) == adapter_bytes(single)


def test_a_link_that_stays_cut_ends_both_in_time(hosts: None, tmp_path: Path) -> None:
    """With the base in parts, so that a worker waits for the other in the middle of a step."""
    changes = {"MAX_STEPS": "1000", "STORAGE_RETRY_MINUTES": "0.25", "SHARDING": "fsdp"}
    workers = start_on_hosts(tmp_path, **changes)
    wait_for_step(workers[0], 5)
    link("down")
    began = time.monotonic()
    assert ends(workers) == [12, 12]
    assert time.monotonic() - began < 300  # of the 15 minutes that it would wait by default
    assert all("cannot be reached" in worker.stderr.read() for worker in workers)
