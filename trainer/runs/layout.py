"""Where a run's objects lie in its output, and what `latest.json` says."""

import json
import re

from trainer.storage import Store

LATEST = "latest.json"
REJECTED = "rejected"
FINGERPRINT = "fingerprint.json"
METRICS = "metrics.jsonl"
_CHECKPOINT = re.compile(r"step-(\d{6,})")


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after that many optimizer steps."""
    return f"step-{step:06d}"


def step_of(name: str) -> int:
    """The optimizer step in a checkpoint's name, 0 when it is none."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match.group(1)) if match else 0


def newest_run(store: Store) -> str | None:
    """The run that `latest.json` names; None where there is none."""
    try:
        return str(json.loads(store.read(LATEST) or b"{}")["run_id"])
    except (ValueError, KeyError, TypeError):
        return None


def finished_at(record: bytes | None) -> float:
    """The field `finished` of `run.json` or `latest.json`; 0 when it is missing or broken."""
    try:
        return float(json.loads(record or b"{}")["finished"])
    except (ValueError, KeyError, TypeError):
        return 0.0
