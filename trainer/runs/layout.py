"""Where a run's objects lie in its output, and what `latest.json` says."""

import re
import time
from typing import Any

from trainer.runtime.json_records import json_object
from trainer.setting_checks import RUN_ID
from trainer.storage import Store

LATEST = "latest.json"
REJECTED = "rejected"
PREPARED = "prepared"
FINGERPRINT = "fingerprint.json"
METRICS = "metrics.jsonl"
RECORD = "run.json"
CLOCKS_DIFFER_S = 86_400.0
_CHECKPOINT = re.compile(r"step-(\d{6,})")


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after that many optimizer steps."""
    return f"step-{step:06d}"


def step_of(name: str) -> int:
    """The optimizer step in a checkpoint's name, 0 when it is none."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match.group(1)) if match else 0


def newest_run(store: Store) -> str | None:
    """The run that `latest.json` names; None where there is none, or what cannot be one."""
    run_id = _field(store.read(LATEST), "run_id")
    return run_id if isinstance(run_id, str) and RUN_ID.fullmatch(run_id) else None


def finished_at(record: bytes | None) -> float:
    """The field `finished` of `run.json` or `latest.json`; 0 when it is missing or broken, or
    later than the clocks of two machines can differ: no run could ever be newer."""
    at = _field(record, "finished")
    is_time = isinstance(at, int | float) and 0 <= at <= time.time() + CLOCKS_DIFFER_S
    return float(at) if is_time else 0.0


def _field(record: bytes | None, name: str) -> Any:
    """None where `record` is broken."""
    try:
        return json_object(record or b"{}").get(name)
    except ValueError:
        return None
