"""How the run speaks: readable lines on a terminal, one JSON object a line elsewhere.

Every record passes one redacting filter when it is made, so that no secret reaches a line,
whichever library wrote it to whichever handler.
"""

import json
import logging
import os
import shutil
import sys
import threading
import time
import warnings
from typing import Any, TextIO

from trainer.runtime.redaction import redact
from trainer.runtime.wording import as_typed, hanging

_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # show text in another order
_COMMANDS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *_BIDI], "\N{REPLACEMENT CHARACTER}")
_COMMANDS |= {ord(kept): kept for kept in "\n\t"}
FIELDS = "fields"  # the attribute of a log record that holds its figures
COPIED = "copied"  # that of one which is a command or a path: a line end would be copied with it


def set_up(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send every logger of the process through one handler, on stdout unless that is a result."""
    logging.setLogRecordFactory(_RedactedRecord)
    threading.excepthook = _log_ended_thread
    handler = logging.StreamHandler(stream or sys.stdout)
    is_text = wants_text(log_format)
    handler.setFormatter(_TextFormatter(handler.stream) if is_text else _JsonFormatter())
    logging.basicConfig(level=_level_for_libraries(level), handlers=[handler], force=True)
    logging.getLogger("trainer").setLevel(level)
    logging.captureWarnings(True)
    _quieten_libraries()


def wants_text(log_format: str) -> bool:
    """Whether this run's output is for a person: `auto` is text on a terminal only."""
    return log_format == "text" or (log_format == "auto" and sys.stdout.isatty())


def wants_colour() -> bool:
    """Whether that person sees colours, and has not said that they are not wanted."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def terminal() -> TextIO | None:
    """The terminal that the log is read on as text, if it is."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            is_text = isinstance(handler.formatter, _TextFormatter)
            if is_text and handler.stream.isatty():
                return handler.stream  # type: ignore[no-any-return]
    return None


def columns(stream: TextIO) -> int:
    """How wide the terminal behind `stream` is. By itself: COLUMNS, which Python would ask first,
    may be another terminal's, and is for those that do not know their size."""
    try:
        if width := os.get_terminal_size(stream.fileno()).columns:
            return width
    except (OSError, ValueError):
        pass
    return shutil.get_terminal_size().columns


def figures(**values: Any) -> dict[str, Any]:
    """`log.info("message", extra=figures(step=1))`: named values that join the JSON line.

    The message says in words what a person needs of them.
    """
    return {FIELDS: values}


def copied(**values: Any) -> dict[str, Any]:
    """As `figures`, for a line that people copy from a terminal."""
    return {FIELDS: values, COPIED: True}


def one_line(text: object, most: int | None = None, ending: str = "") -> str:
    """What `text`, such as an error, says, on one line of `most` characters.

    One that is longer is cut and gets `ending`.
    """
    line = " ".join(str(text).split())
    return line if most is None or len(line) <= most else line[: most - len(ending)] + ending


def for_terminal(text: str) -> str:
    """`text` of anybody's without what a terminal takes for a command: C0 and C1 but for line
    ends and tabs, and what shows words in another order than they are in."""
    return text.translate(_COMMANDS)


def _quieten_libraries() -> None:
    """Progress bars, advice and usage reports that nobody asked this run for.

    The libraries read these variables when they are imported, which is later.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)  # for us, not for the user
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    # On a CPU it misses a package that is fetched from the hub while running.
    logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)


def _level_for_libraries(level: str) -> str:
    """Libraries are heard from WARNING on, unless everything was asked for."""
    return level if level in ("DEBUG", "ERROR") else "WARNING"


class _RedactedRecord(logging.LogRecord):
    """No handler gets at a secret: transformers and others write with ones of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info:
            self.exc_text = redact(logging.Formatter().formatException(self.exc_info))

    def getMessage(self) -> str:
        return redact(as_typed(super().getMessage()))


def _log_ended_thread(ended: threading.ExceptHookArgs) -> None:
    """Python would print it past every filter."""
    if ended.exc_value is not None and ended.exc_type is not SystemExit:
        found = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logging.getLogger(__name__).error("a thread ended", exc_info=found)


class _TextFormatter(logging.Formatter):
    """For `stream`, where it is a terminal, broken between words, but for what is to be copied."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream if stream.isatty() else None

    def format(self, record: logging.LogRecord) -> str:
        before, said = f"{time.strftime('%H:%M:%S')}  ", for_terminal(record.getMessage())
        if record.levelno >= logging.WARNING:
            before += f"{record.levelname.lower()}: "
        text = f"{before}{said}"
        if self._stream is not None and not (getattr(record, COPIED, False) or "\n" in said):
            text = hanging(said, columns(self._stream), before)
        return text + ("\n" + record.exc_text if record.exc_text else "")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        line |= getattr(record, FIELDS, {})
        if record.exc_text:
            line["traceback"] = record.exc_text
        return redact(json.dumps(line, default=str))
