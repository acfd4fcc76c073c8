"""How one worker's failure becomes that of all.

A worker that fails leaves its exit code and sentence in the store. The others' next collective
breaks; they look there for the reason and end with the same code.
"""

import contextlib
import json
import time
from collections.abc import Iterator

from trainer.distributed.shared_store import ANSWER_TIMEOUT_S, SharedStore
from trainer.errors import JobError, UnreachableError
from trainer.runtime.signals import Stopped, interruption

FAILURE = "failure"  # key of the store
POLL_S = 0.2


class OtherFailed(Exception):
    """Another worker's failure as it arrives here; `Workers.session` raises its `error`."""

    def __init__(self, error: JobError) -> None:
        self.error = error


def publish_failure(store: SharedStore, rank: int, error: BaseException) -> None:
    """Leave the reason for the others, before their next collective fails. The first one counts."""
    if isinstance(error, Stopped):
        error = interruption()
    code = getattr(error, "exit_code", JobError.exit_code)
    failure = json.dumps([rank, code, str(error) or type(error).__name__])
    with contextlib.suppress(RuntimeError):
        store.ask(lambda store: store.set_once(FAILURE, failure))


@contextlib.contextmanager
def translate_errors(store: SharedStore | None) -> Iterator[None]:
    """Around whatever torch.distributed does: raises OtherFailed, with why a worker is gone."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:  # this worker's own, while it made room
        raise
    except RuntimeError as error:  # all that torch.distributed raises
        raise _other_failure(store, error) from error


def first_line(error: BaseException) -> str:
    """Of what torch.distributed says, without its source positions."""
    return str(error).split("\n")[0].rpartition("] ")[2][:200]


def _other_failure(store: SharedStore | None, error: RuntimeError) -> OtherFailed:
    """What a worker that stopped answering has left in the store, if it could."""
    with contextlib.suppress(RuntimeError):  # the store dies with the first worker
        if store is not None:
            rank, code, sentence = json.loads(store.ask(_wait_for_failure))
            return OtherFailed(_type_of(code)(f"worker {rank}: {sentence}"))
    return OtherFailed(
        UnreachableError(
            f"another worker ended or cannot be reached ({first_line(error)}); start again to go "
            "on from the last checkpoint"
        )
    )


def _wait_for_failure(store: SharedStore) -> str:
    end = time.monotonic() + ANSWER_TIMEOUT_S / 2
    while time.monotonic() < end:
        if store.has(FAILURE):
            return store.get(FAILURE)
        time.sleep(POLL_S)
    raise RuntimeError("nobody has said why")


def _type_of(exit_code: int) -> type[JobError]:
    kinds = JobError.__subclasses__()
    return next((kind for kind in kinds if kind.exit_code == exit_code), JobError)
