"""Ports of this machine."""

import contextlib
import os
import secrets
import socket
import time
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes side by side, and products too small to be worth a second thread.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    # Before anything imports Triton: its interpreter runs the kernels on a CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def unused_port() -> int:
    """Below those that the system hands out: no connection takes it before it is listened on."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def wait_until_open(port: int) -> None:
    for _ in range(2400):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
