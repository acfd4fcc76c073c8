"""malloc keeps less: all threads share one heap, and what lies free in it is given back."""

import subprocess
import sys

import pytest
from jobs import ROOT

# Whether a thread that starts behind it got a heap of its own: glibc says so in XML.
HEAPS = """
import ctypes, os, threading
from trainer import memory
if __import__("sys").argv[1] == "shared":
    memory.share_one_heap()
threads = [threading.Thread(target=lambda: bytearray(100_000)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p] * 2
libc.fclose.argtypes, libc.malloc_info.argtypes = [ctypes.c_void_p], [ctypes.c_int, ctypes.c_void_p]
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""
is_glibc = sys.platform == "linux"


def heaps(how: str) -> int:
    command = [sys.executable, "-c", HEAPS, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(not is_glibc, reason="only glibc's malloc is asked")
def test_threads_share_one_heap() -> None:
    assert heaps("shared") == 1 < heaps("as usual")
