"""Which run this is: its fingerprint, its id, and the record that keeps two runs apart."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import JobError, SettingsError
from trainer.runs.layout import FINGERPRINT
from trainer.runtime.json_records import json_object
from trainer.runtime.naming import digest, slug
from trainer.settings import Settings
from trainer.storage import Store

log = logging.getLogger(__name__)

_NAMED_FIELDS = 5
# Raised when what is held out, masking, packing, loss or schedule change, so that the same settings
# end in other weights: a run that was begun by the old way is not gone on with by the new one.
METHOD = 7


def fingerprint_of(
    settings: Settings,
    *,
    base: Mapping[str, str],
    precision: str,
    data: Mapping[str, str],
    evaluation: Mapping[str, str],
    libraries: Mapping[str, str],
    preparation: Mapping[str, Any] | None = None,
) -> str:
    """Everything that two runs must share to end in the same weights, as JSON.

    `base` is its name and revision, `data` and `evaluation` are the SHA-256 of each file by
    name, `libraries` are versions, `preparation` is how data are made of the data first, if any.
    """
    record = {
        "method": METHOD,
        "settings": settings.changing_the_result() | {"precision": precision},
        "data": dict(data),
        "evaluation": dict(evaluation),
        "base": dict(base),
        "libraries": dict(libraries),
    }
    if preparation is not None:  # elsewhere the record is as it was before there was one
        record["preparation"] = dict(preparation)
    return json.dumps(record, indent=1, sort_keys=True)


def claim_run_id(output: Store, settings: Settings, text: str) -> str:
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


@contextlib.contextmanager
def released_if_refused(output: Store, run_id: str) -> Iterator[None]:
    """A start that is refused for good before it has made anything leaves no record behind."""
    try:
        yield
    except JobError as error:
        name = f"{run_id}/{FINGERPRINT}"
        with contextlib.suppress(JobError):  # why it was refused is what counts
            if not error.retry_helps and [s.name for s in output.list(f"{run_id}/")] == [name]:
                output.delete([name])
        raise


def _recorded(output: Store, run_id: str, text: str) -> str | None:
    """Record the fingerprint of `run_id`; the one that was there, if it is another."""
    name = f"{run_id}/{FINGERPRINT}"
    if output.write(name, text.encode(), only_if_absent=True):
        return None
    there = (output.read(name) or b"{}").decode(errors="replace")
    return None if there == text else there


def _parsed(text: str) -> dict[str, Any]:
    """A stored fingerprint; a damaged one differs in everything."""
    try:
        return json_object(text)
    except ValueError:
        return {}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The dotted names under which two nested dictionaries differ."""
    names: list[str] = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            names += [f"{name}.{below}" for below in _differing(a, b)]
        elif a != b:
            names.append(name)
    return names
