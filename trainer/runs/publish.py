"""A run is published by one process, completely, and once.

Several pods may finish the same run at the same time. The first to create `publishing.json`
uploads; the others wait for its manifest and compare.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from trainer.errors import RejectedError
from trainer.runs.layout import LATEST, REJECTED, finished_at
from trainer.runtime import signals
from trainer.runtime.redaction import holds_a_secret
from trainer.storage import Published, Store, publish
from trainer.storage.files import sha256_of
from trainer.storage.lease import publish_alone
from trainer.storage.manifest import delete_with_manifests


def publish_run(folder: Path, store: Store, run_id: str, *, owner: str, weights: str) -> Published:
    """Publish `folder` as `run_id`, or find that somebody else did.

    `owner` names this process and its restarts on the same machine; `weights` is the object that
    has to be the same whoever publishes. Raises RejectedError when another process published
    other weights under this id: started again, this one would only find the run finished; and
    where a file holds a secret of this machine.
    """
    refuse_secrets(folder, run_id)
    published = publish_alone(
        folder,
        store,
        run_id,
        owner,
        # An earlier start may have been held to another limit.
        before=lambda: delete_with_manifests(store, f"{run_id}/{REJECTED}"),
        # Stopped from here on, the run might be published and say that it was stopped.
        uploaded=signals.hold,
    )
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
    refuse_secrets(folder, run_id)
    delete_with_manifests(store, f"{run_id}/{REJECTED}")  # of an earlier start, by other limits
    publish(folder, store, f"{run_id}/{REJECTED}")
    raise RejectedError(
        f"the adapter of run {run_id} was rejected: {'; '.join(faults)}. It is kept with its "
        f"report in {store.uri}{run_id}/{REJECTED}/; correct the settings or the data and start "
        "again"
    )


def refuse_secrets(folder: Path, run_id: str) -> None:
    """Raise RejectedError where a text holds what this machine must not show: by whatever way a
    base or a corpus brought it there, it is not sent anywhere."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".safetensors" and holds_a_secret(path.read_bytes()):
            raise RejectedError(
                f"run {run_id}: {path.relative_to(folder)} holds a secret of this machine, so "
                "nothing is published; look in the data and in the base model's tokenizer for it"
            )


def move_latest(store: Store, run_id: str, finished: float) -> None:
    """Let `latest.json` name this run, unless it names one that finished later.

    `finished` is in seconds since the epoch.
    """

    def newer(there: bytes | None) -> bytes | None:
        if there is not None and finished_at(there) >= finished:
            return None
        return json.dumps({"run_id": run_id, "finished": finished}).encode()

    store.update(LATEST, newer)


def touch_latest(store: Store) -> None:
    """Write `latest.json` as it stands, to find out whether a run that finishes may move it."""
    store.update(LATEST, lambda there: there)
