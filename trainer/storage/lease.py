"""One process at a time publishes a folder: whoever holds its lease.

Several pods may work on the same run, and the objects of one must not be listed in the manifest of
another. A lease is an object that its holder changes every RENEWED_S. One that has stayed the same
for LEASE_S belongs to nobody: its holder is dead, or stands still and will find that it lost it.
"""

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import eq
from pathlib import Path

from trainer.errors import JobError
from trainer.storage.files import staged
from trainer.storage.manifest import MANIFEST, Published
from trainer.storage.store import OvertakenError, Store
from trainer.storage.transfer import publish

log = logging.getLogger(__name__)

LEASE = "publishing.json"
OWNER = re.compile("[0-9a-f]{32}")
LEASE_S = 60.0
RENEWED_S = 10.0
MOST_TIMES = 10  # that others take the place of one publisher
RELEASE_S = 5.0  # of the grace period after a signal, at most


def publish_alone(
    folder: Path,
    store: Store,
    under: str,
    owner: str,
    *,
    before: Callable[[], None] = lambda: None,
    uploaded: Callable[[], None] = lambda: None,
) -> Published:
    """`publish`, while nobody else does it there, or find what somebody else published.

    `before` is called once the place is ours, `uploaded` as in `publish`.
    """
    for _ in range(MOST_TIMES):
        lease = Lease(store, f"{under}/{LEASE}", owner)

        def all_there(lease: Lease = lease) -> None:
            lease.confirm()
            uploaded()

        try:
            with lease.held(unless=f"{under}/{MANIFEST}"):
                before()
                return publish(folder, store, under, around=lease.writing, uploaded=all_there)
        except (LeaseLostError, OvertakenError):
            log.warning("this process stood still, and another one took its place in publishing")
    raise OvertakenError(f"{store.uri}{under}: others write there all the time; start again")


def owner_of(scratch: Path) -> str:
    """A name that a restart in the same scratch folder shares, so that it need not wait."""
    file = scratch / "owner"
    with suppress(OSError, ValueError):
        # An empty one, as a full disk leaves it, would be the owner of every lease.
        if OWNER.fullmatch(owner := file.read_text(encoding="utf-8")):
            return owner
    owner = secrets.token_hex(16)
    with staged(file) as staging:
        staging.write(owner.encode())
    return owner


class LeaseLostError(Exception):
    """Another process holds the lease: this one stood still for too long."""


class Lease:
    """The lease `name` in `store`, for `owner`: a process and its restarts on the same machine."""

    def __init__(self, store: Store, name: str, owner: str) -> None:
        self._store = store
        self._name = name
        self._owner = owner
        self._place = store.uri + name.removesuffix("/" + LEASE)
        self._released = threading.Event()
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self._changed = threading.Condition()
        self._writing = 0

    @contextmanager
    def held(self, *, unless: str) -> Iterator[None]:
        """Hold it, renewed in the background, or go on without it once `unless` exists."""
        if not self._acquire(unless):
            yield
            return
        self._renewal.start()
        try:
            yield
        except BaseException:
            # Whoever comes next need not wait; a store that does not answer is not waited for.
            _within(RELEASE_S, self._release)
            raise
        self._release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around each write that needs the lease. Raises LeaseLostError when it is gone."""
        self._count(1)
        try:
            self.confirm()
            yield
        finally:
            self._count(-1)

    def confirm(self) -> None:
        """Raise LeaseLostError unless the store says that it is ours: no clock tells how long a
        machine stood still."""
        if not self._is_ours(self._store.read(self._name)):
            raise LeaseLostError

    def _acquire(self, unless: str) -> bool:
        """True when the lease is ours, False when there is no need for it any more."""
        seen: bytes | None = None
        since = time.monotonic()
        while True:
            if self._store.read(unless) is not None:
                return False
            if self._store.write(self._name, self._claim(), only_if_absent=True):
                return True
            held = self._store.read(self._name)
            if self._is_ours(held):
                return True
            if held != seen:
                seen, since = held, time.monotonic()
                log.info("another process is publishing %s; waiting for it", self._place)
            elif time.monotonic() - since > LEASE_S:
                log.warning("who was publishing %s is gone; taking its place", self._place)
                self._replace(partial(eq, held))
                seen = None  # whoever was faster is waited for as anybody
                continue
            time.sleep(1)

    def _renew(self) -> None:
        while not self._released.wait(RENEWED_S):
            try:
                self._replace(self._is_ours)
            except JobError as error:
                log.warning("the lease on publishing could not be renewed: %s", error)

    def _release(self) -> None:
        self._released.set()
        self._renewal.join(timeout=RENEWED_S)  # or it might write the lease again
        with self._changed:  # after a signal, threads may still be sending
            self._changed.wait_for(lambda: not self._writing)
        if self._is_ours(self._store.read(self._name)):
            self._store.delete([self._name])

    def _replace(self, expected: Callable[[bytes | None], bool]) -> None:
        """Write our claim over one that is `expected`, and over no other."""
        self._store.update(
            self._name,
            lambda there: self._claim() if there is not None and expected(there) else None,
        )

    def _is_ours(self, held: bytes | None) -> bool:
        return held is not None and held.startswith(self._owner.encode())

    def _claim(self) -> bytes:
        """Different each time, so that others see it change."""
        return f"{self._owner} {secrets.token_hex(8)}".encode()

    def _count(self, change: int) -> None:
        with self._changed:
            self._writing += change
            self._changed.notify_all()


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Do what may hang, and go on without it after so long."""

    def attempt() -> None:
        try:
            action()
        except JobError as error:
            log.warning("the lease on publishing could not be released: %s", error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout=seconds)
