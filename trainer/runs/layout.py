"""Where a run's objects lie in its output, and what `latest.json` says."""

import json

from trainer.storage import Store

LATEST = "latest.json"


REJECTED = "rejected"


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
