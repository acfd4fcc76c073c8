"""The child process: reads the files it is given under limits, and writes their items.

A request is `[name, suffix, compression, columns]` as JSON, behind its length, which comes with the
open file: this process may open none itself. The answer is the items, one line each, and `["end"]`
or `["unusable", reason]`. The first line of all is `["lacks", reasons]`: what is not forbidden.
"""

import json
import logging
import mimetypes
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PosixPath
from typing import Any

from trainer.corpus import confinement
from trainer.corpus.columns import Columns
from trainer.corpus.examples import as_unusable, unreadable
from trainer.corpus.formats import Format, read
from trainer.corpus.sandbox_protocol import encode_item

_OUT_OF_MEMORY = 3  # exit code; the parent starts a fresh child
_LENGTH_BYTES = 4


class OpenFile(PosixPath):
    """A file that is open already: opening its path is looking at it from its start again."""

    descriptor: int

    def open(self, mode: str = "rb", buffering: int = -1, *_: Any, **__: Any) -> Any:
        found = os.fdopen(os.dup(self.descriptor), mode, buffering)
        found.seek(0)  # the place is that of all who have it open: one after the other
        return found

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.fstat(self.descriptor)


def send_request(
    child: socket.socket, file: int, path: Path, form: Format, columns: Columns
) -> None:
    """`file` is the descriptor of the open file."""
    asked = json.dumps([path.name, form.suffix, form.compression, asdict(columns)]).encode()
    socket.send_fds(child, [len(asked).to_bytes(_LENGTH_BYTES)], [file])
    child.sendall(asked)


def _requests(parent: socket.socket) -> Iterator[tuple[OpenFile, Format, Columns]]:
    """Until the parent is gone. A file is closed when the next one is asked for."""
    while True:
        length, files, _, _ = socket.recv_fds(parent, _LENGTH_BYTES, 1)
        if not length:
            return
        asked = parent.recv(int.from_bytes(length), socket.MSG_WAITALL)
        name, suffix, compression, columns = json.loads(asked)
        file = OpenFile(name)
        file.descriptor = files[0]
        yield file, Format(suffix, compression), Columns(**columns)
        os.close(file.descriptor)


def main(memory_bytes: int) -> int:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries may print
    confinement.limit(memory_bytes)
    logging.disable()
    mimetypes.init([])  # openpyxl asks it, and it would read /etc/mime.types
    parent = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    answers.write(json.dumps(["lacks", confinement.confine()]).encode() + b"\n")
    for file, form, columns in _requests(parent):
        last = ["end"]
        try:
            for item in read(file, form, columns):
                answers.write(encode_item(item))
        except MemoryError:
            return _OUT_OF_MEMORY
        except OSError as error:  # whatever a library makes of a broken file
            last = ["unusable", str(unreadable(error.strerror or error, str(form)))]
        except Exception as error:
            last = ["unusable", str(as_unusable(error, str(form)))]
        answers.write(json.dumps(last).encode() + b"\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
