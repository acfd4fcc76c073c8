"""The child process: reads the files it is told to under limits, and writes their items.

A request is a line `[path, suffix, compression, columns]` of JSON; the answer is the items, one
line each, and `["end"]` or `["unusable", reason]`.
"""

import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Unusable
from trainer.corpus.formats import Format, read
from trainer.corpus.sandbox_protocol import encode_item

_OUT_OF_MEMORY = 3  # exit code; the parent starts a fresh child


def request(path: Path, form: Format, columns: Columns) -> bytes:
    return json.dumps([str(path), form.suffix, form.compression, asdict(columns)]).encode() + b"\n"


def main(memory_bytes: int) -> int:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries may print
    _limit(memory_bytes)
    logging.disable()
    for line in sys.stdin.buffer:
        path, suffix, compression, columns = json.loads(line)
        form = Format(suffix, compression)
        last = ["end"]
        try:
            for item in read(Path(path), form, Columns(**columns)):
                answers.write(encode_item(item))
        except Unusable as refused:
            last = ["unusable", str(refused)]
        except MemoryError:
            return _OUT_OF_MEMORY
        except OSError as error:
            last = ["unusable", _reason(error.strerror or error, form)]
        except RecursionError:
            last = ["unusable", f"it is nested too deep for a {form}"]
        except Exception as error:  # whatever a library makes of a broken file
            last = ["unusable", _reason(error, form)]
        answers.write(json.dumps(last).encode() + b"\n")
        answers.flush()
    return 0


def _reason(error: object, form: Format) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"it is no readable {form} ({lines[0][:120]})"


def _limit(memory_bytes: int) -> None:
    """No more memory than this, no core files, and no writing of files."""
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
