"""A run is published by one process, completely, and once.

Several pods may finish the same run at the same time. The first to create `publishing.json`
uploads; the others wait for its manifest and compare. A publisher that died is recognised by a
lease that no longer changes, and its place is taken.
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from trainer import stopping
from trainer.errors import JobError, RejectedError
from trainer.storage import Published, Store, publish
from trainer.storage.disk import sha256_of
from trainer.storage.transfer import MANIFEST

log = logging.getLogger(__name__)

LEASE = "publishing.json"
LEASE_S = 60.0  # a lease that stays the same for longer belongs to nobody
RENEWED_S = 10.0
LATEST = "latest.json"
REJECTED = "rejected"


def publish_run(folder: Path, store: Store, run_id: str, *, owner: str, weights: str) -> Published:
    """Publish `folder` as `run_id`, or find that somebody else did.

    `owner` names this process and its restarts on the same machine; `weights` is the object that
    has to be the same whoever publishes. Raises RejectedError when another process published
    other weights under this id: started again, this one would only find the run finished.
    """
    with _lease(store, f"{run_id}/{LEASE}", owner, unless=f"{run_id}/{MANIFEST}"):
        _remove_rejected(store, run_id)
        # Stopped from here on, the run might be published and say that it was stopped.
        published = publish(folder, store, run_id, uploaded=stopping.hold)
    if published.objects[weights].sha256 != sha256_of(folder / weights):
        raise RejectedError(
            f"run {run_id} was published by another process meanwhile, with other weights; "
            "choose another QLORA_RUN_ID to keep both"
        )
    return published


def reject_run(folder: Path, store: Store, run_id: str, faults: Sequence[str]) -> NoReturn:
    """Keep `folder` below `rejected/`, where nobody takes it for a finished run.

    Always raises RejectedError, with all `faults`.
    """
    _remove_rejected(store, run_id)
    publish(folder, store, f"{run_id}/{REJECTED}")
    raise RejectedError(
        f"the adapter of run {run_id} was rejected: {'; '.join(faults)}. It is kept with its "
        f"report in {store.uri}{run_id}/{REJECTED}/; correct the settings or the data and start "
        "again"
    )


def _remove_rejected(store: Store, run_id: str) -> None:
    """An earlier start may have been held to another limit. Manifest first, as ever."""
    names = [stored.name for stored in store.list(f"{run_id}/{REJECTED}/")]
    store.delete([name for name in names if name.endswith("/" + MANIFEST)])
    store.delete(names)


def owner_of(scratch: Path) -> str:
    """A name that a restart in the same scratch folder shares, so that it need not wait."""
    file = scratch / "owner"
    if not file.exists():
        file.write_text(secrets.token_hex(16))
    return file.read_text()


def move_latest(store: Store, run_id: str, finished: float) -> None:
    """Let `latest.json` name this run, unless it names one that finished later.

    `finished` is in seconds since the epoch.
    """

    def newer(there: bytes | None) -> bytes | None:
        if there is not None and finished_at(there) >= finished:
            return None
        return json.dumps({"run_id": run_id, "finished": finished}).encode()

    store.update(LATEST, newer)


def finished_at(record: bytes | None) -> float:
    """The field `finished` of `run.json` or `latest.json`; 0 when it is missing or broken."""
    try:
        return float(json.loads(record or b"{}")["finished"])
    except (ValueError, KeyError, TypeError):
        return 0.0


@contextmanager
def _lease(store: Store, name: str, owner: str, *, unless: str) -> Iterator[None]:
    """Hold the lease `name`, renewed in the background, or return once `unless` exists."""
    if not _acquire(store, name, owner, unless):
        yield
        return
    released = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, name, owner, released), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        released.set()
    renewal.join(timeout=RENEWED_S)  # or it would write the lease again
    store.delete([name])


def _acquire(store: Store, name: str, owner: str, unless: str) -> bool:
    """True when the lease is ours, False when there is no need for it any more."""
    seen, since = b"", time.monotonic()
    while True:
        if store.read(unless) is not None:
            return False
        if store.write(name, _claim(owner), only_if_absent=True):
            return True
        held = store.read(name) or b""
        if held.startswith(owner.encode()):
            return True
        if held != seen:
            seen, since = held, time.monotonic()
            log.info("another process is publishing this run; waiting for it")
        elif time.monotonic() - since > LEASE_S:
            log.warning("the process that was publishing this run is gone; taking its place")
            store.delete([name])
        time.sleep(1)


def _renew(store: Store, name: str, owner: str, released: threading.Event) -> None:
    while not released.wait(RENEWED_S):
        try:
            store.write(name, _claim(owner))
        except JobError as error:
            log.warning("the lease on publishing could not be renewed: %s", error)


def _claim(owner: str) -> bytes:
    """Different each time, so that others see it change."""
    return f"{owner} {secrets.token_hex(8)}".encode()
