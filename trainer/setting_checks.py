"""Faults of a setting that its limits cannot say: of its form, or beside other settings."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from trainer.options import ENV_PREFIX, Interval, Option
from trainer.uris import is_meant_as_bucket_uri, uri_faults

ALL_LINEAR = "all-linear"  # in place of names: every linear layer but the head, as peft says it
TRACKERS = ("tensorboard", "mlflow", "wandb")
Values = Mapping[str, Any]
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


NAMES_OF_OTHERS = {"latest.json"}  # of what lies beside the runs


def known_base(option: Option, base_model: str, _others: Values) -> Iterator[str]:
    if is_meant_as_bucket_uri(base_model):
        yield from uri_faults(option.env, base_model)
    elif base_model.startswith("builtin:") and base_model != "builtin:tiny":
        yield f"{option.env}={base_model}: the only built-in model is builtin:tiny"


def name_of_a_run(option: Option, run_id: str, _others: Values) -> Iterator[str]:
    if run_id and not RUN_ID.fullmatch(run_id):
        yield f"{option.env}={run_id!r} needs letters, digits, '.', '_' and '-' only"
    if run_id.lower() in NAMES_OF_OTHERS:
        yield f"{option.env}={run_id} is the name of a file beside the runs; choose another"


def some_modules(option: Option, modules: tuple[str, ...], _others: Values) -> Iterator[str]:
    if not modules:
        yield f"{option.env} is empty; name modules or use {ALL_LINEAR}"


def whole_micro_batches(option: Option, effective: int | None, others: Values) -> Iterator[str]:
    micro = others.get("batch_size")
    if micro and effective and effective % micro:
        yield (f"{option.env}={effective} needs to be a multiple of {ENV_PREFIX}BATCH_SIZE={micro}")


def some_time(option: Option, interval: Interval, _others: Values) -> Iterator[str]:
    if not 0 < (interval.minutes or interval.steps or 0) < float("inf"):
        yield f"{option.env}={interval} needs more than 0"


def some_words(option: Option, text: str, _others: Values) -> Iterator[str]:
    if not any(map(str.isalnum, text)):
        yield f"{option.env}={text!r} holds no word"


def ip_address(option: Option, address: str, _others: Values) -> Iterator[str]:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        yield f"{option.env}={address!r} is no IP address, such as 127.0.0.1 or ::"


def owner_and_name(option: Option, repo: str, _others: Values) -> Iterator[str]:
    if repo and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repo):
        yield f"{option.env}={repo!r} needs the form owner/name"


def known_trackers(option: Option, names: tuple[str, ...], _others: Values) -> Iterator[str]:
    if unknown := [name for name in names if name not in TRACKERS]:
        yield f"{option.env}={','.join(unknown)} needs some of {', '.join(TRACKERS)}"


def endpoint_with_model(option: Option, url: str, others: Values) -> Iterator[str]:
    """Nothing is shown of a URL that may hold a key."""
    if not url:
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"{option.env} needs the form http://host/v1 or https://host/v1"
    if "@" in url or parts.query:
        yield f"{option.env} holds a user or a query; keys belong into OPENAI_API_KEY"
    model = option.name.replace("_url", "_model")
    if not others.get(model):
        yield f"{ENV_PREFIX}{model.upper()} is required beside {option.env}: the model's name there"
