"""How the run speaks: readable lines on a terminal, one JSON object a line elsewhere.

Every record passes one redacting filter: no secret of the environment reaches a log line,
whichever library wrote it.
"""

import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|API_KEY|ACCESS_KEY")
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 6  # shorter values would blank out ordinary words
FIELDS = "fields"  # the attribute of a log record that holds its figures


def set_up(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send every logger of the process through one handler, on stdout unless that is a result."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_TextFormatter() if wants_text(log_format) else _JsonFormatter())
    logging.basicConfig(level=_level_for_libraries(level), handlers=[handler], force=True)
    logging.getLogger("trainer").setLevel(level)
    logging.captureWarnings(True)
    _quieten_libraries()


def wants_text(log_format: str) -> bool:
    """Whether this run's output is for a person: `auto` is text on a terminal only."""
    return log_format == "text" or (log_format == "auto" and sys.stdout.isatty())


def figures(**values: Any) -> dict[str, Any]:
    """`log.info("message", extra=figures(step=1))`: named values that join the JSON line.

    The message says in words what a person needs of them.
    """
    return {FIELDS: values}


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without user:password in URLs and without any secret value of the environment."""
    text = _USER_INFO.sub("***@", text)
    for name, value in environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return text


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


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = "" if record.levelno < logging.WARNING else record.levelname.lower() + ": "
        text = f"{time.strftime('%H:%M:%S')}  {mark}{record.getMessage()}"
        return redact(text + self._traceback(record))

    def _traceback(self, record: logging.LogRecord) -> str:
        return "\n" + self.formatException(record.exc_info) if record.exc_info else ""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))
