"""Answers that people keep on the page, right as they are or corrected: records to train on."""

import errno
import fcntl
import json
import os
import threading
from pathlib import Path

from trainer.errors import DoesNotFitError
from trainer.runtime.regular_files import open_unfollowed
from trainer.storage.files import disk_errors

FILE = Path("rated.jsonl")
MOST_BYTES = 64 << 20  # of the file: some ten thousand long answers


class Ratings:
    """A file of JSON lines, a conversation each, which is there once something is kept."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path, self._most_bytes = path.absolute(), most_bytes
        self._lock = threading.Lock()

    def keep(self, said: list[tuple[str, str]], question: str, answer: str) -> None:
        """A record of `answer` to `question`, once. What was `said` before it, questions with their
        answers, is given there and not trained: nobody has looked at it.

        Raises JobError where the file cannot be written, and leaves it as it was.
        """
        turns = [turn for pair in said for turn in _turns(*pair, weight=0)]
        record = {"messages": [*turns, *_turns(question, answer)]}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with self._lock, disk_errors(self.path):
            file = open_unfollowed(self.path, os.O_RDWR | os.O_APPEND, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # of a second server in this folder
                self._append(file, line)
            finally:
                os.close(file)

    def _append(self, file: int, line: bytes) -> None:
        size = os.fstat(file).st_size
        # Without its end, which an editor may have left out of the last.
        if line[:-1] in os.pread(file, size, 0).split(b"\n"):
            return
        if size and os.pread(file, 1, size - 1) != b"\n":  # an editor left it so
            line = b"\n" + line
        if size + len(line) > self._most_bytes:
            raise DoesNotFitError(
                f"{self.path}: holds {size >> 20} MiB already; move it to your data, and a new one "
                "is begun"
            )
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise


def _turns(question: str, answer: str, **more: int) -> list[dict[str, object]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, **more},
    ]
