"""How a process ends badly: one sentence for whoever reads it, and the exit code."""

import contextlib
import errno
import os
import re
import sys
from pathlib import Path

import click

from trainer.errors import DataError, Interrupted, JobError, NotAllowedError, SettingsError
from trainer.runtime import log
from trainer.runtime.redaction import redact
from trainer.runtime.regular_files import InTheWayError, NotAFileError
from trainer.runtime.wording import as_typed

TERMINATION_LOG = Path("/dev/termination-log")  # where Kubernetes looks for the last word
TERMINATION_BYTES = 4096


def misused(error: click.ClickException) -> JobError:
    """A command line that is not understood is a wrong setting like any other."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "entrypoint.py"
    fact = error.format_message().rstrip(".")
    return SettingsError(f"{fact}; `{command} --help` shows what there is")


def errno_of(error: BaseException) -> int | None:
    """What the system said, also to a library in Rust, which says it in a type of its own."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def unforeseen(error: BaseException) -> None:
    """End the process with what nothing below has caught; raise what is no fault."""
    if not (isinstance(error, Exception) or is_panic(error)):
        raise error
    import logging

    logging.getLogger(__name__).debug("unexpected", exc_info=error)
    end(unexpected(error))


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up, of which Python makes no Exception."""
    return type(error).__module__ == "pyo3_runtime"


def unexpected(error: BaseException) -> JobError:
    """A sentence for what nothing below this knows; libraries word a full disk in many ways."""
    text, number = log.one_line(error), errno_of(error)
    if is_panic(error):
        return SettingsError(
            f"the tokenizer of the base fails ({text}): its tokenizer.json asks for what no text "
            "can be given; bring the model there again or choose another QLORA_BASE_MODEL"
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        fact = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else text
        return NotAllowedError(
            f"{fact}; give user {os.geteuid()} access to it or set "
            "QLORA_SCRATCH_DIR to a folder that can be written"
        )
    if isinstance(error, InTheWayError):
        return NotAllowedError(f"{error.filename}: {error.strerror}; move it away")
    if isinstance(error, NotAFileError):
        return DataError(f"{error.filename}: {error.strerror}; put the file itself there")
    if isinstance(error, OSError) and number in (errno.ENAMETOOLONG, errno.ELOOP):
        name = log.one_line(error.filename, 80, "…")
        step = "no disk has such a name, choose another"
        if number == errno.ELOOP:
            step = "a link there leads back to itself; remove it"
        return SettingsError(f"{name}: {error.strerror}; {step}")
    if isinstance(error, NotADirectoryError | FileExistsError):
        return SettingsError(
            f"{error.filename}: a file is in the way of a folder; remove it, or set "
            "QLORA_SCRATCH_DIR to another folder"
        )
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return JobError(
            f"a disk is full ({text}); make room or set QLORA_SCRATCH_DIR to a larger one, then "
            "start the run again: it goes on from its last checkpoint"
        )
    return JobError(f"unexpected {type(error).__name__}: {text}; QLORA_LOG_LEVEL=DEBUG shows where")


def shown(error: JobError) -> str:
    """Its sentence as a person may see it: what a stranger's file, template or server put there is
    no command to a terminal, and no secret is in it."""
    return log.for_terminal(redact(as_typed(str(error))))


def end(error: JobError) -> None:
    """One sentence to stderr and to Kubernetes, then the exit code."""
    sentence = shown(error)
    click.echo(f"{'stopped' if isinstance(error, Interrupted) else 'error'}: {sentence}", err=True)
    with contextlib.suppress(OSError):
        # Of several workers in a pod one fails, and the others, stopped then, keep its word.
        if not (TERMINATION_LOG.stat().st_size and isinstance(error, Interrupted)):
            TERMINATION_LOG.write_bytes(sentence.encode()[:TERMINATION_BYTES])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread that is still computing or sending would hold or abort the process.
    os._exit(error.exit_code)
