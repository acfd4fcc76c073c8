"""torch.distributed's key-value store, asked with a time limit."""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

ANSWER_TIMEOUT_S = 10.0
Answer = TypeVar("Answer")


class SharedStore:
    """The store that all workers met in; it lives in the first worker's process, and dies with it.

    `store` is torch.distributed's. All of this raises RuntimeError when it is out of reach.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def set(self, key: str) -> None:
        self._store.set(key, "1")

    def has(self, key: str) -> bool:
        return bool(self._store.check([key]))

    def get(self, key: str) -> str:
        return str(self._store.get(key).decode())

    def set_once(self, key: str, value: str) -> str:
        """The value of the first worker that came."""
        return str(self._store.compare_set(key, "", value).decode())

    def add(self, key: str, amount: int) -> int:
        """The counter afterwards."""
        return int(self._store.add(key, amount))

    def ask(
        self, question: Callable[["SharedStore"], Answer], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Answer:
        """`question(self)`. By itself a store waits for a lost host as long as TCP does."""
        answers: queue.SimpleQueue[tuple[Answer] | RuntimeError] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((question(self),))
            except RuntimeError as error:
                answers.put(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            answer = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise RuntimeError("the first worker does not answer") from None
        if isinstance(answer, RuntimeError):
            raise answer
        return answer[0]
