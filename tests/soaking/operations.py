"""What a process does to files and over HTTP, counted, and its end before any of it."""

import mmap
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "http.client.send"}


class Operations:
    """Counts what this process does to the files in `folder` and over HTTP, and may end it.

    `counted` is shared memory: all operations, and those of one save. The second are counted only
    while the checkpoint of step 3 is saved and pushed and that of step 1 retired, and they include
    the writes by native code and the fsyncs.
    """

    def __init__(self, folder: Path, counted: mmap.mmap | None = None) -> None:
        self._folders = (str(folder / "scratch"), str(folder / "out"))
        self._counted = counted
        self._last, self._only_saves = 0, False
        self._in_save = False
        self._all = self._of_save = 0

    def count(self) -> None:
        self._watch()
        self._watch_saves()

    def kill_before(self, number: int, of_save: bool) -> None:
        """SIGKILL this process before its `number`-th operation, or its `number`-th of the save."""
        self._last, self._only_saves = number, of_save
        self._watch()
        if of_save:
            self._watch_saves()

    def _reached(self, *, only_in_save: bool = False) -> None:
        self._all += not only_in_save
        self._of_save += self._in_save
        if self._counted is not None:
            self._counted[:16] = self._all.to_bytes(8) + self._of_save.to_bytes(8)
        if self._last and self._last == (self._of_save if self._only_saves else self._all):
            os.kill(os.getpid(), signal.SIGKILL)

    def _watch(self) -> None:
        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in EVENTS:
                return
            reads = event == "open" and not (
                isinstance(arguments[1], str) and set(arguments[1]) & {*"wax+"}
            )
            ours = not reads and str(arguments[0]).startswith(self._folders)
            if event == "http.client.send" or ours:
                self._reached()

        sys.addaudithook(hook)

    def _watch_saves(self) -> None:
        from trainer.runs.checkpoints import Checkpoints
        from trainer.training import resumable_trainer

        def first(action: Callable[..., Any]) -> Callable[..., Any]:
            def reached_first(*arguments: Any, **named: Any) -> Any:
                self._reached(only_in_save=True)
                return action(*arguments, **named)

            return reached_first

        os.fsync = first(os.fsync)
        resumable_trainer.save_file = first(resumable_trainer.save_file)
        save = Checkpoints.save

        def save_and_push(own: Checkpoints, step: int, write: Callable[[Path], None]) -> Path:
            self._in_save = step == 3
            saved = save(own, step, write)
            own.finish()
            self._in_save = False
            return saved

        Checkpoints.save = save_and_push  # type: ignore[method-assign]
