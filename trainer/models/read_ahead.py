"""Bytes read by a thread ahead of whoever needs them."""

import queue
import threading
from collections.abc import Iterator

from trainer.storage import Bytes

READ_AHEAD_BYTES = 256 << 20


class ReadAhead:
    """`chunks`, taken by a thread up to READ_AHEAD_BYTES before they are needed."""

    def __init__(self, chunks: Iterator[Bytes]) -> None:
        self._chunks = chunks
        self._ready: queue.SimpleQueue[Bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._waiting_bytes = 0
        self._closed = False
        threading.Thread(target=self._work, daemon=True).start()

    def next(self) -> Bytes | None:
        """The next chunk, None after the last one. Raises what reading raised."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        with self._room:
            self._waiting_bytes -= len(item or b"")
            self._room.notify()
        return item

    def close(self) -> None:
        """Read no more."""
        with self._room:
            self._closed = True
            self._room.notify()

    def _work(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._has_room_for(chunk):
                    break
                self._ready.put(chunk)
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _has_room_for(self, chunk: Bytes) -> bool:
        with self._room:
            self._room.wait_for(lambda: self._closed or self._waiting_bytes < READ_AHEAD_BYTES)
            self._waiting_bytes += len(chunk)
            return not self._closed
