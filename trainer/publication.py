"""A run is published by one process, completely, and once.

Several pods may finish the same run at the same time. The first to create `publishing.json`
uploads; the others wait for its manifest and compare.
"""

import json
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from trainer import stopping
from trainer.errors import RejectedError
from trainer.lease import Lease, LostError
from trainer.storage import Published, Store, publish
from trainer.storage.disk import sha256_of
from trainer.storage.transfer import MANIFEST

log = logging.getLogger(__name__)

LEASE = "publishing.json"
LATEST = "latest.json"
REJECTED = "rejected"


def publish_run(folder: Path, store: Store, run_id: str, *, owner: str, weights: str) -> Published:
    """Publish `folder` as `run_id`, or find that somebody else did.

    `owner` names this process and its restarts on the same machine; `weights` is the object that
    has to be the same whoever publishes. Raises RejectedError when another process published
    other weights under this id: started again, this one would only find the run finished.
    """
    while (published := _publish_alone(folder, store, run_id, owner)) is None:
        log.warning("this process stood still, and another one took its place in publishing")
    if published.objects[weights].sha256 != sha256_of(folder / weights):
        raise RejectedError(
            f"run {run_id} was published by another process meanwhile, with other weights; "
            "choose another QLORA_RUN_ID to keep both"
        )
    return published


def _publish_alone(folder: Path, store: Store, run_id: str, owner: str) -> Published | None:
    """Publish with the lease; None when it was lost, so that another process may be at it."""
    lease = Lease(store, f"{run_id}/{LEASE}", owner)

    def uploaded() -> None:
        lease.confirm()
        # Stopped from here on, the run might be published and say that it was stopped.
        stopping.hold()

    try:
        with lease.held(unless=f"{run_id}/{MANIFEST}"):
            _remove_rejected(store, run_id)
            return publish(folder, store, run_id, around=lease.writing, uploaded=uploaded)
    except LostError:
        return None


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
