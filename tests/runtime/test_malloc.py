"""malloc keeps less: threads share two heaps, and what lies free in it is given back."""

import subprocess
import sys

import pytest
from support.jobs import ROOT

from trainer.runtime import malloc

# How many heaps four threads at once have together with the first one: glibc says so in XML.
HEAPS = """
import ctypes, os, threading
from trainer.runtime import malloc
if __import__("sys").argv[1] == "shared":
    malloc.limit_arenas()
together = threading.Barrier(4)
def work():
    together.wait()
    bytearray(100_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
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
def test_threads_share_two_heaps() -> None:
    assert heaps("shared") == malloc.ARENAS < heaps("as usual")
