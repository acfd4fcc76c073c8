"""The last words of a run: what it reached, where that is, and what to do next."""

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.dataset.holdout import loss_name
from trainer.evaluation.verdict import NOT_LEARNED, is_verdict
from trainer.runtime.json_records import json_object, well_formed
from trainer.runtime.log import copied, figures
from trainer.runtime.wording import this_command

log = logging.getLogger(__name__)


def log_outcome(record: bytes | None, run_uri: str, base_folder: Path | None = None) -> None:
    """Of the finished run at `run_uri`, whose `run.json` is `record`. A `base_folder` is named:
    what is published does not say where it lies, and a later shell may have another scratch."""
    if reached := _reached(record):
        # Behind "published …", which reads as success.
        but = "published, but " if reached.startswith(NOT_LEARNED) else ""
        log.info("%s%s", but, reached, extra=figures(verdict=reached))
    report = f"{run_uri}/report.html"
    ask = f"{this_command()} ask --adapter {shlex.quote(run_uri)}"
    if base_folder is not None:
        ask += f" --base-model {shlex.quote(str(base_folder.resolve()))}"
    log.info("report: %s", report, extra=copied(report=report))
    log.info("ask it: %s", ask, extra=copied(ask=ask))


def _reached(record: bytes | None) -> str:
    """The verdict, with the step that it advises; the losses of a run that asked no question."""
    try:
        with well_formed("a record of a run"):
            known = json_object(record or b"{}")
            said = [str(sentence) for sentence in known["warnings"] if is_verdict(str(sentence))]
            return said[0] if said else _losses(known)
    except ValueError:  # an older one, or damaged: it is published anyhow
        return ""


def _losses(known: Mapping[str, Any]) -> str:
    evaluation = known["evaluation"]
    name = loss_name(str(known.get("data", {}).get("held_out_by", "")))
    before, after = evaluation["base"]["loss"], evaluation["tuned"]["loss"]
    return f"no question was asked: the {name} went from {before:.2f} to {after:.2f}"
