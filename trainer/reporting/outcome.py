"""The last words of a run: what it reached, where that is, and what to do next."""

import logging
import shlex
from collections.abc import Mapping
from typing import Any

from trainer.evaluation.verdict import is_verdict
from trainer.runtime.json_records import json_object, well_formed
from trainer.runtime.log import figures
from trainer.runtime.wording import this_command

log = logging.getLogger(__name__)


def log_outcome(record: bytes | None, run_uri: str) -> None:
    """Of the finished run at `run_uri`, whose `run.json` is `record`."""
    if reached := _reached(record):
        log.info("%s", reached, extra=figures(verdict=reached))
    report = f"{run_uri}/report.html"
    ask = f"{this_command()} ask --adapter {shlex.quote(run_uri)}"
    log.info("report: %s", report, extra=figures(report=report))
    log.info("ask it: %s", ask, extra=figures(ask=ask))  # a line that can be copied


def _reached(record: bytes | None) -> str:
    """The verdict, with the step that it advises; the losses of a run that asked no question."""
    try:
        with well_formed("a record of a run"):
            known = json_object(record or b"{}")
            said = [str(sentence) for sentence in known["warnings"] if is_verdict(str(sentence))]
            return said[0] if said else _losses(known["evaluation"])
    except ValueError:  # an older one, or damaged: it is published anyhow
        return ""


def _losses(evaluation: Mapping[str, Any]) -> str:
    before, after = evaluation["base"]["loss"], evaluation["tuned"]["loss"]
    return f"no question was asked: the held-out loss went from {before:.2f} to {after:.2f}"
