"""Forked processes that run the job: they import nothing, for that was done before the fork."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWPID = 0x20000000


def preload() -> None:
    """Import everything the job imports; start no thread and compute nothing before a fork."""
    # pyarrow's jemalloc starts a thread of its own where it is only imported.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    import boto3  # noqa: F401

    import trainer.job  # noqa: F401
    from trainer.runtime import device, lean_imports

    lean_imports.import_bitsandbytes()
    with lean_imports.without_wandb():
        import trainer.training.loop  # noqa: F401
    # The driver, which imports have asked for a GPU, ends a fork that starts it again.
    device.CONTROL = Path(os.devnull, "none")
    gc.collect()
    gc.freeze()  # or each collection in a child copies all that is imported
    names = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    if len(names) > 1:
        print(f"  threads before the first fork, which takes one: {', '.join(names)}", flush=True)


LIVE: "set[Child]" = set()


class Child:
    """A forked process; `target` is who gets the signal. In `LIVE` until it was waited for."""

    def __init__(self, parent: int, target: int) -> None:
        self.parent = parent
        self.target = target
        LIVE.add(self)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.target, number)

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.parent, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        code = os.waitpid(self.parent, 0)[1]
        LIVE.discard(self)
        return os.waitstatus_to_exitcode(code)


def fork(work: Callable[[], None], as_pid_1: bool = False) -> Child:
    """Run `work` in a child, if asked as the first process of a new PID namespace."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        LIVE.clear()
        if not as_pid_1:
            os.write(writer, str(os.getpid()).encode())
            run_and_exit(work)
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID):
            os._exit(99)
        first = os.fork()
        if first == 0:
            run_and_exit(work)
        os.write(writer, str(first).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    os.close(writer)
    target = int(os.read(reader, 20))
    os.close(reader)
    return Child(parent, target)


def kill_all() -> None:
    """What this process has forked and not waited for: it would go on, with our pipes and files."""
    for child in [*LIVE]:
        child.signal(signal.SIGKILL)
        child.wait()


def run_and_exit(work: Callable[[], None]) -> None:
    code = 98
    try:
        work()
        code = 0
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    except BaseException as error:
        sys.stderr.write(f"escaped: {error!r}\n")
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)
