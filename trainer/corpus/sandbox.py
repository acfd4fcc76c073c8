"""Reading a file in a child process, so that no file can take this one down.

The child has a limit of memory and none of our environment variables; it is given each file open,
and where the kernel can forbid it, it reaches no other file, no network and no process (see
`confinement`). It serves one file after the other; one that hangs, crashes or floods is replaced.
"""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from trainer.corpus.columns import Columns
from trainer.corpus.decoding import decompressed_limit, decompresses_too_large
from trainer.corpus.examples import Item, TooSlow, Unusable
from trainer.corpus.formats import Format
from trainer.corpus.sandbox_child import send_request
from trainer.corpus.sandbox_protocol import decode_item

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parent.parent.parent
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
_CHILD_ENVIRONMENT = {  # threads and arenas reserve address space that nobody uses
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True)
class SandboxLimits:
    """`seconds` and `seconds_per_mib` of the file are what this process waits for its child."""

    memory_bytes: int = 2 << 30
    seconds: float = 60
    seconds_per_mib: float = 5


def unconfined() -> list[str]:
    """What the kernel of this machine cannot forbid a child, in words."""
    command = [sys.executable, "-m", "trainer.corpus.confinement"]
    found = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


class Sandbox:
    """Reads files in a child that is started when the first one comes."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self._limits = limits or SandboxLimits()
        self._child: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self.lacks: tuple[str, ...] | None = None
        """what could not be forbidden on this machine; known once a file was read"""

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def read(self, path: Path, form: Format, columns: Columns) -> Iterator[Item]:
        """As `formats.read`; Unusable is also raised where a limit is reached."""
        is_answered = False
        try:
            for line in self._lines(path, form, columns):
                if line.startswith(b'["lacks"'):
                    self._note(json.loads(line)[1])
                    continue
                if line.startswith(b'["end"'):
                    is_answered = True
                    return
                if line.startswith(b'["unusable"'):
                    is_answered = True
                    raise Unusable(str(json.loads(line)[1]))
                yield decode_item(line)
        finally:
            if not is_answered:  # nobody knows what it would say next
                self._end()

    def _lines(self, path: Path, form: Format, columns: Columns) -> Iterator[bytes]:
        size = path.stat().st_size
        timeout = self._limits.seconds + self._limits.seconds_per_mib * size / 2**20
        child = self._child_process()
        assert self._requests is not None and child.stdout is not None
        try:
            with path.open("rb") as file:
                send_request(self._requests, file.fileno(), path, form, columns)
        except (BrokenPipeError, ConnectionResetError):
            raise Unusable(self._why_ended(child, form)) from None
        left, received, line = timeout, 0, bytearray()
        while True:
            before = time.monotonic()
            is_ready, _, _ = select.select([child.stdout], [], [], left)
            left = max(left - (time.monotonic() - before), 0)
            if not is_ready:
                raise TooSlow(f"reading it took more than {timeout:.0f} s; remove or convert it")
            data = os.read(child.stdout.fileno(), _PIPE_BYTES)
            if not data:
                raise Unusable(self._why_ended(child, form))
            received += len(data)
            if received > 2 * decompressed_limit(size):  # JSON may double the bytes of a text
                raise decompresses_too_large(size)
            *whole, rest = data.split(b"\n")
            for part in whole:
                yield bytes(line + part)
                line.clear()
            line += rest

    def _child_process(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            self._requests, childs = socket.socketpair()
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "trainer.corpus.sandbox_child",
                    str(self._limits.memory_bytes),
                ],
                cwd=_ROOT,
                env={k: os.environ[k] for k in _INHERITED if k in os.environ} | _CHILD_ENVIRONMENT,
                stdin=childs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            childs.close()
        return self._child

    def _note(self, lacks: list[str]) -> None:
        if self.lacks is None and lacks:
            log.debug("what reads files here cannot be kept from: %s", "; ".join(map(str, lacks)))
        self.lacks = tuple(map(str, lacks))

    def _why_ended(self, child: subprocess.Popen[bytes], form: Format) -> str:
        """Why a child ended in the middle of a file."""
        code = child.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"its reader crashed ({name}): it is no sound {form}; remove or convert it"
        memory = self._limits.memory_bytes / 2**20
        return f"reading it needs more than {memory:,.0f} MiB of memory; split or convert it"

    def _end(self) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        child.kill()
        child.wait()
        for pipe in (self._requests, child.stdout):
            if pipe is not None:
                pipe.close()
