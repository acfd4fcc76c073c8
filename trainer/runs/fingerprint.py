"""Which run this is: its fingerprint, its id, and the claim that keeps two runs apart."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer.errors import SettingsError
from trainer.settings import Settings
from trainer.storage import Store

if TYPE_CHECKING:
    from trainer.models.base_model import Base
    from trainer.runtime.device import Precision

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"
_NAMED_FIELDS = 5


def fingerprint_of(
    settings: Settings,
    base: "Base",
    precision: "Precision",
    *,
    data: Mapping[str, str],
    evaluation: Mapping[str, str],
    libraries: Mapping[str, str],
) -> str:
    """Everything that two runs must share to end in the same weights, as JSON.

    `data` and `evaluation` are the SHA-256 of each file by name, `libraries` are versions.
    """
    record = {
        "settings": settings.changing_the_result() | {"precision": precision.name},
        "data": dict(data),
        "evaluation": dict(evaluation),
        "base": {"name": base.name, "revision": base.revision},
        "libraries": dict(libraries),
    }
    return json.dumps(record, indent=1, sort_keys=True)


def digest(text: str) -> str:
    """The first 12 hex digits of a SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def slug(text: str) -> str:
    """The last part of a path or URI, as a name for a folder or a run."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.")
    return name or "run"


def claim(output: Store, settings: Settings, text: str) -> str:
    """The id of the run with the fingerprint `text`, recorded in `output` by the first who asks.

    A run id of the user's that belongs to another run already is refused with RESUME=must
    (SettingsError) and gets a suffix otherwise: two runs never mix.
    """
    run_id = settings.run_id or f"{slug(settings.base_model)}-{digest(text)}"
    other = _recorded(output, run_id, text)
    if other is None:
        return run_id
    names = _differing(_parsed(other), json.loads(text))
    fields = ", ".join(names[:_NAMED_FIELDS]) + (", …" if len(names) > _NAMED_FIELDS else "")
    if settings.resume == "must":
        raise SettingsError(
            f"QLORA_RESUME=must: run {run_id} was made with other {fields}; "
            "restore them or choose another QLORA_RUN_ID"
        )
    mine = f"{run_id}-{digest(text)}"
    log.warning("run %s was made with other %s; this is run %s", run_id, fields, mine)
    _recorded(output, mine, text)
    return mine


def _recorded(output: Store, run_id: str, text: str) -> str | None:
    """Record the fingerprint of `run_id`; the one that was there, if it is another."""
    name = f"{run_id}/{FINGERPRINT}"
    if output.write(name, text.encode(), only_if_absent=True):
        return None
    there = (output.read(name) or b"{}").decode()
    return None if there == text else there


def _parsed(text: str) -> dict[str, Any]:
    """A stored fingerprint; a damaged one differs in everything."""
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The dotted names under which two nested dictionaries differ."""
    names = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            names += [f"{name}.{below}" for below in _differing(a, b)]
        elif a != b:
            names.append(name)
    return names
