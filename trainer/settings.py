"""Every option of the job, defined once: name, type, default, meaning and limits.

`Settings` is the single source for the command-line flags, the `QLORA_*` environment
variables, the table in the README and the settings recorded in `run.json`.
"""

import difflib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError
from trainer.options import (
    ENV_PREFIX,
    FOLDER,
    INTERVAL,
    NAMES,
    NUMBER,
    NUMBER_OR_AUTO,
    PLACE,
    WHOLE,
    WHOLE_OR_AUTO,
    WHOLE_OR_UNSET,
    Interval,
    Option,
    neutral,
    option,
    options_of,
    place,
    unquoted,
)
from trainer.uris import FORMS, is_meant_as_bucket_uri, publishable_uri, uri_faults

# Defaults by purpose; what is set beside a recipe beats it. Figures: docs/measurements/0013.
RECIPES: dict[str, dict[str, str]] = {
    "none": {},
    "facts": {"target_modules": "gate_proj,up_proj,down_proj", "effective_batch_size": "4"},
    "style": {"epochs": "2"},
}
ALL_LINEAR = "all-linear"  # in place of names: every linear layer but the head, as peft says it
GUESSED = "guessed from usual names"
TRACKERS = ("tensorboard", "mlflow", "wandb")
OTHER_TOOLS = ("AWS_", "HF_", "WANDB_", "MLFLOW_")  # whose variables a run reads too
Values = Mapping[str, Any]


def _known_base(option: Option, base_model: str, _others: Values) -> Iterator[str]:
    if is_meant_as_bucket_uri(base_model):
        yield from uri_faults(option.env, base_model)
    elif base_model.startswith("builtin:") and base_model != "builtin:tiny":
        yield f"{option.env}={base_model}: the only built-in model is builtin:tiny"


def _name_of_a_run(option: Option, run_id: str, _others: Values) -> Iterator[str]:
    if run_id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_id):
        yield f"{option.env}={run_id!r} needs letters, digits, '.', '_' and '-' only"


def _some_modules(option: Option, modules: tuple[str, ...], _others: Values) -> Iterator[str]:
    if not modules:
        yield f"{option.env} is empty; name modules or use {ALL_LINEAR}"


def _whole_micro_batches(option: Option, effective: int | None, others: Values) -> Iterator[str]:
    micro = others.get("batch_size")
    if micro and effective and effective % micro:
        yield (f"{option.env}={effective} needs to be a multiple of {ENV_PREFIX}BATCH_SIZE={micro}")


def _some_time(option: Option, interval: Interval, _others: Values) -> Iterator[str]:
    if not 0 < (interval.minutes or interval.steps or 0) < float("inf"):
        yield f"{option.env}={interval} needs more than 0"


def _owner_and_name(option: Option, repo: str, _others: Values) -> Iterator[str]:
    if repo and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repo):
        yield f"{option.env}={repo!r} needs the form owner/name"


def _known_trackers(option: Option, names: tuple[str, ...], _others: Values) -> Iterator[str]:
    if unknown := [name for name in names if name not in TRACKERS]:
        yield f"{option.env}={','.join(unknown)} needs some of {', '.join(TRACKERS)}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run's options, checked. Build it with `Settings.read`."""

    data_uri: str = place(f"training data: folder, file or {FORMS}", required=True)
    output_uri: str = place(f"where the run is published: folder or {FORMS}", required=True)
    base_model: str = option(
        "NousResearch/Llama-2-7b-hf",
        f"base model: hub id, folder, {FORMS} or `builtin:tiny`",
        PLACE,
        check=_known_base,
    )
    base_revision: str = option("main", "hub revision of the base model")
    base_cache_uri: str = place(
        f"folder or {FORMS} where the quantised base is kept for the next run", shown="not kept"
    )
    eval_uri: str = place(
        "separate evaluation data, same formats as the training data", shown="held out of the data"
    )
    question_column: str = option("", "column that holds the questions", shown=GUESSED)
    answer_column: str = option("", "column that holds the answers", shown=GUESSED)
    text_column: str = option("", "column that holds plain text", shown=GUESSED)
    run_id: str = neutral(
        "",
        "names the run; the same run id resumes",
        shown="derived from settings and data",
        check=_name_of_a_run,
    )
    resume: str = neutral(
        "auto",
        "`auto` continues from the newest valid checkpoint, `never` starts over, "
        "`must` fails without a checkpoint",
        choices=("auto", "never", "must"),
    )
    recipe: str = neutral(
        "none",
        "other defaults for a purpose: `facts` teaches them best, `style` takes few passes",
        choices=("none", "facts", "style"),
    )
    lora_r: int = option("8", "rank of the adapter", WHOLE, least=1, most=1024)
    lora_alpha: int = option(
        "16", "scale of the adapter: its output is multiplied by alpha / r", WHOLE, least=1
    )
    lora_dropout: float = option(
        "0.1", "dropout in front of the adapter", NUMBER, least=0, most=0.9
    )
    target_modules: tuple[str, ...] = option(
        "q_proj,v_proj",
        f"layers that get an adapter: names separated by commas, or `{ALL_LINEAR}`",
        NAMES,
        check=_some_modules,
    )
    max_length: int = option("512", "tokens in a block", WHOLE, least=16)
    epochs: float | None = option(
        "auto", "passes over the data; `auto` is as many as it needs", NUMBER_OR_AUTO, above=0
    )
    max_steps: int | None = option("", "optimizer steps; overrides epochs", WHOLE_OR_UNSET, least=1)
    batch_size: int | None = option("auto", "blocks in one micro-batch", WHOLE_OR_AUTO, least=1)
    effective_batch_size: int | None = option(
        "auto",
        "blocks in one optimizer step; `auto` leaves enough steps",
        WHOLE_OR_AUTO,
        least=1,
        check=_whole_micro_batches,
    )
    learning_rate: float | None = option(
        "auto",
        "peak learning rate; `auto` goes by adapter, width and blocks in a step",
        NUMBER_OR_AUTO,
        above=0,
        most=1,
    )
    warmup_ratio: float | None = option(
        "auto", "share of the steps that warm up", NUMBER_OR_AUTO, least=0, most=1
    )
    scheduler: str = option(
        "cosine",
        "learning-rate schedule after the warm-up",
        choices=("cosine", "linear", "constant"),
    )
    weight_decay: float = option("0", "weight decay of AdamW", NUMBER, least=0, most=1)
    max_skipped_share: float = option(
        "0.1",
        "share of files and records that may be skipped or fully masked before the run fails",
        NUMBER,
        least=0,
        most=1,
    )
    max_loss_ratio: float = neutral(
        "0.99",
        "held-out loss after training as a share of the base model's; above it the adapter is "
        "rejected: it learned nothing",
        NUMBER,
        above=0,
    )
    precision: str = option(
        "auto",
        "`auto` is bf16 from compute capability 8.0, fp16 below (T4), fp32 on a CPU",
        choices=("auto", "fp16", "bf16", "fp32"),
    )
    engine: str = option(
        "auto",
        "`auto` trains Llama, Mistral and Qwen models with the project's own fast engine, `stock` "
        "all with transformers and peft alone",
        choices=("auto", "stock"),
    )
    sharding: str = neutral(
        "auto",
        "several workers hold the base whole each (`ddp`) or in parts together (`fsdp`); `auto` in "
        "parts only where it does not fit whole",
        choices=("auto", "ddp", "fsdp"),
    )
    checkpoint_every: Interval = neutral(
        "10m",
        "minutes (`10m`) or optimizer steps (`200`) between checkpoints",
        INTERVAL,
        check=_some_time,
    )
    storage_retry_minutes: float = neutral(
        "15", "how long to keep trying a bucket or hub that is out of reach", NUMBER, least=0
    )
    s3_requester_pays: str = neutral(
        "no",
        "`yes` agrees to pay for what is fetched from buckets that ask for it",
        choices=("no", "yes"),
    )
    s3_kms_key: str = neutral(
        "",
        "key that S3 encrypts what is stored with (SSE-KMS): id, ARN or alias",
        shown="as the bucket is set",
    )
    scratch_dir: Path = neutral(
        "",
        "local folder for downloads and checkpoints; keep it on a volume to survive a restart",
        FOLDER,
        shown="`qlora` in the temporary folder",
    )
    seed: int = option("42", "every random choice", WHOLE, least=0, most=2**32 - 1)
    log_format: str = neutral(
        "auto", "`auto` is text on a terminal and json elsewhere", choices=("auto", "text", "json")
    )
    log_level: str = neutral(
        "INFO", "how much is logged", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    hub_repo: str = neutral(
        "",
        "also push the adapter to this model on the Hugging Face hub, `owner/name`; a new one is "
        "private",
        shown="not pushed",
        check=_owner_and_name,
    )
    report_to: tuple[str, ...] = neutral(
        "",
        "also report to `tensorboard`, `mlflow` or `wandb`, separated by commas",
        NAMES,
        shown="nothing",
        check=_known_trackers,
    )
    metrics_port: int | None = neutral(
        "",
        "port that serves Prometheus metrics while the run lasts",
        WHOLE_OR_UNSET,
        least=1,
        most=65535,
        shown="off",
    )

    @classmethod
    def read(
        cls, flags: Mapping[str, str | None], environ: Mapping[str, str], *, trains: bool = True
    ) -> "Settings":
        """Flag beats environment beats default.

        `flags` maps field names to what was typed, None where a flag was not given. A command
        that does not train needs none of the required settings. Raises SettingsError that lists
        every fault of every source.
        """
        values, faults = _parsed(flags, environ, trains)
        if faults:
            raise SettingsError("; ".join(faults))
        if values["scratch_dir"] == Path():
            values["scratch_dir"] = Path(tempfile.gettempdir()) / "qlora"
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without secrets or paths of this machine: what `run.json` records."""
        record = asdict(self)
        del record["scratch_dir"]
        record["checkpoint_every"] = str(self.checkpoint_every)
        for o in options():
            if o.parser is PLACE:
                record[o.name] = publishable_uri(record[o.name])
        return record

    def changing_the_result(self) -> dict[str, Any]:
        """The settings that two runs must share to end in the same weights, JSON-ready."""
        record = self.to_dict()
        return {o.name: record[o.name] for o in options() if o.changes_result}


def options() -> list[Option]:
    """Every setting in the order it is documented."""
    return options_of(fields(Settings))


def _parsed(
    flags: Mapping[str, str | None], environ: Mapping[str, str], trains: bool
) -> tuple[dict[str, Any], list[str]]:
    """The value of each option that could be read, and every fault of every source."""
    faults = [*unknown_variables(environ), *_spoilt_variables(environ)]
    values: dict[str, Any] = {}
    recipe = RECIPES.get(_recipe_named(flags, environ), {})
    for one in options():
        source, raw = one.given(flags, environ, recipe.get(one.name))
        try:
            values[one.name] = one.parse(raw)
        except ValueError:
            faults.append(f"{source}={raw!r} is not {one.parser.expected}")
            continue
        faults += (f"{source}={raw}: {fault}" for fault in one.faults(values[one.name]))
        if trains and not raw and one.required:
            faults.append(f"{one.env} is required: {one.meaning}")
    for one in options():
        if one.check and one.name in values:
            faults += one.check(one, values[one.name], values)
    return values, faults


def _recipe_named(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    (option,) = (one for one in options() if one.name == "recipe")
    return str(option.parse(option.given(flags, environ)[1]))


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One fault for each `QLORA_*` variable that is no setting, with the nearest real name."""
    known = [option.env for option in options()]
    faults = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            faults.append(f"{name} is not a setting; did you mean {near}?")
    return faults


def _spoilt_variables(environ: Mapping[str, str]) -> list[str]:
    """Faults of other tools' variables that no tool forgives; their values are never shown."""
    return [
        f"{name} has quotes, a space or a line break around its value; take them away "
        "(`echo -n` makes no line break, env files need no quotes)"
        for name, value in sorted(environ.items())
        if name.startswith(OTHER_TOOLS) and unquoted(value) != value
    ]
