"""Every option of the job, defined once: name, type, default, meaning and limits.

`Settings` is the single source for the command-line flags, the `QLORA_*` environment
variables, the table in the README and the settings recorded in `run.json`.
"""

import difflib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError
from trainer.uris import publishable_uri, uri_faults

ENV_PREFIX = "QLORA_"
ALL_LINEAR = "all-linear"  # in place of names: every linear layer but the head, as peft says it
TRACKERS = ("tensorboard", "mlflow", "wandb")
REQUIRED = ""  # the default of a setting that has none


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Time or optimizer steps between two events; exactly one of the two is set."""

    minutes: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        return f"{self.minutes:g}m" if self.minutes is not None else f"{self.steps}"


def _text(raw: str) -> str:
    return raw.strip()


def _optional_int(raw: str) -> int | None:
    return int(raw) if raw.strip() else None


def _batch_size(raw: str) -> int | None:
    """`auto` is None: the device decides."""
    return None if raw.strip().lower() in ("", "auto") else int(raw)


def _names(raw: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(raw.replace(",", " ").split()))


def _place(raw: str) -> str:
    """A folder or URI; `~` is left to no shell, and `S3://` is no other place than `s3://`."""
    text = raw.strip()
    if text.lower().startswith("s3://"):
        return "s3" + text[2:]
    return str(Path(text).expanduser()) if text.startswith("~") else text


def _interval(raw: str) -> Interval:
    text = raw.strip().lower()
    if text.endswith("m"):
        return Interval(minutes=float(text[:-1]))
    return Interval(steps=int(text))


def _path(raw: str) -> Path:
    return Path(raw.strip()).expanduser()


# What a value looks like, for the message when it does not.
_EXPECTED: dict[Callable[[str], Any], str] = {
    int: "a whole number",
    float: "a number",
    _optional_int: "a whole number",
    _batch_size: "a whole number or auto",
    _interval: "minutes (10m) or optimizer steps (200)",
}


def _option(
    default: str,
    meaning: str,
    *,
    parse: Callable[[str], Any] = _text,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    shown: str = "",
    changes_result: bool = True,
) -> Any:
    """One setting. `default` is as a user would type it; `shown` replaces it in the docs."""
    return field(
        metadata={
            "default": default,
            "meaning": meaning,
            "parse": parse,
            "least": least,
            "most": most,
            "above": above,
            "choices": choices,
            "shown": shown or default or "unset",
            "changes_result": changes_result,
        }
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run's options, checked. Build it with `Settings.read`."""

    data_uri: str = _option(
        REQUIRED,
        "training data: folder, file or `s3://bucket/prefix/`",
        parse=_place,
        shown="required",
        changes_result=False,
    )
    output_uri: str = _option(
        REQUIRED,
        "where the run is published: folder or `s3://bucket/prefix/`",
        parse=_place,
        shown="required",
        changes_result=False,
    )
    base_model: str = _option(
        "NousResearch/Llama-2-7b-hf",
        "base model: hub id, folder, `s3://bucket/prefix/` or `builtin:tiny`",
        parse=_place,
    )
    base_revision: str = _option("main", "hub revision of the base model")
    base_cache_uri: str = _option(
        "",
        "folder or `s3://bucket/prefix/` where the quantised base is kept for the next run",
        parse=_place,
        shown="not kept",
        changes_result=False,
    )
    eval_uri: str = _option(
        "",
        "separate evaluation data, same formats as the training data",
        parse=_place,
        shown="held out of the data",
        changes_result=False,
    )
    question_column: str = _option(
        "", "column that holds the questions", shown="guessed from usual names"
    )
    answer_column: str = _option(
        "", "column that holds the answers", shown="guessed from usual names"
    )
    text_column: str = _option("", "column that holds plain text", shown="guessed from usual names")
    run_id: str = _option(
        "",
        "names the run; the same run id resumes",
        shown="derived from settings and data",
        changes_result=False,
    )
    resume: str = _option(
        "auto",
        "`auto` continues from the newest valid checkpoint, `never` starts over, "
        "`must` fails without a checkpoint",
        choices=("auto", "never", "must"),
        changes_result=False,
    )
    lora_r: int = _option("8", "rank of the adapter", parse=int, least=1, most=1024)
    lora_alpha: int = _option(
        "16", "scale of the adapter: its output is multiplied by alpha / r", parse=int, least=1
    )
    lora_dropout: float = _option(
        "0.1", "dropout in front of the adapter", parse=float, least=0, most=0.9
    )
    target_modules: tuple[str, ...] = _option(
        "q_proj,v_proj",
        f"layers that get an adapter: names separated by commas, or `{ALL_LINEAR}`",
        parse=_names,
    )
    max_length: int = _option("512", "tokens in a block", parse=int, least=16)
    epochs: float = _option("1", "passes over the data", parse=float, above=0)
    max_steps: int | None = _option(
        "", "optimizer steps; overrides epochs", parse=_optional_int, least=1
    )
    batch_size: int | None = _option(
        "auto", "blocks in one micro-batch", parse=_batch_size, least=1
    )
    effective_batch_size: int = _option("16", "blocks in one optimizer step", parse=int, least=1)
    learning_rate: float = _option("2e-4", "peak learning rate", parse=float, above=0, most=1)
    warmup_ratio: float = _option(
        "0.03", "share of the steps that warm up", parse=float, least=0, most=1
    )
    scheduler: str = _option(
        "cosine",
        "learning-rate schedule after the warm-up",
        choices=("cosine", "linear", "constant"),
    )
    weight_decay: float = _option("0", "weight decay of AdamW", parse=float, least=0, most=1)
    max_skipped_share: float = _option(
        "0.1",
        "share of files and records that may be skipped or fully masked before the run fails",
        parse=float,
        least=0,
        most=1,
    )
    max_loss_ratio: float = _option(
        "1",
        "held-out loss after training as a share of the base model's; above it the adapter is "
        "rejected",
        parse=float,
        above=0,
        changes_result=False,
    )
    precision: str = _option(
        "auto",
        "`auto` is bf16 from compute capability 8.0, fp16 below (T4), fp32 on a CPU",
        choices=("auto", "fp16", "bf16", "fp32"),
    )
    engine: str = _option(
        "auto",
        "`auto` trains Llama, Mistral and Qwen models with the project's own fast engine, `stock` "
        "all with transformers and peft alone",
        choices=("auto", "stock"),
    )
    sharding: str = _option(
        "auto",
        "several workers hold the base whole each (`ddp`) or in parts together (`fsdp`); `auto` in "
        "parts only where it does not fit whole",
        choices=("auto", "ddp", "fsdp"),
        changes_result=False,
    )
    checkpoint_every: Interval = _option(
        "10m",
        "minutes (`10m`) or optimizer steps (`200`) between checkpoints",
        parse=_interval,
        changes_result=False,
    )
    storage_retry_minutes: float = _option(
        "15",
        "how long to keep trying a bucket or hub that is out of reach",
        parse=float,
        least=0,
        changes_result=False,
    )
    s3_requester_pays: str = _option(
        "no",
        "`yes` agrees to pay for what is fetched from buckets that ask for it",
        choices=("no", "yes"),
        changes_result=False,
    )
    s3_kms_key: str = _option(
        "",
        "key that S3 encrypts what is stored with (SSE-KMS): id, ARN or alias",
        shown="as the bucket is set",
        changes_result=False,
    )
    scratch_dir: Path = _option(
        "",
        "local folder for downloads and checkpoints; keep it on a volume to survive a restart",
        parse=_path,
        shown="`qlora` in the temporary folder",
        changes_result=False,
    )
    seed: int = _option("42", "every random choice", parse=int, least=0, most=2**32 - 1)
    log_format: str = _option(
        "auto",
        "`auto` is text on a terminal and json elsewhere",
        choices=("auto", "text", "json"),
        changes_result=False,
    )
    log_level: str = _option(
        "INFO",
        "how much is logged",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        changes_result=False,
    )
    hub_repo: str = _option(
        "",
        "also push the adapter to this model on the Hugging Face hub, `owner/name`; a new one is "
        "private",
        shown="not pushed",
        changes_result=False,
    )
    report_to: tuple[str, ...] = _option(
        "",
        "also report to `tensorboard`, `mlflow` or `wandb`, separated by commas",
        parse=_names,
        shown="nothing",
        changes_result=False,
    )
    metrics_port: int | None = _option(
        "",
        "port that serves Prometheus metrics while the run lasts",
        parse=_optional_int,
        least=1,
        most=65535,
        shown="off",
        changes_result=False,
    )

    @classmethod
    def read(
        cls,
        flags: Mapping[str, str | None],
        environ: Mapping[str, str],
        *,
        trains: bool = True,
    ) -> "Settings":
        """Flag beats environment beats default.

        `flags` maps field names to what was typed, None where a flag was not given. A command
        that does not train needs none of the required settings. Raises SettingsError that lists
        every fault of every source.
        """
        faults = [*unknown_variables(environ), *_spoilt_variables(environ)]
        values: dict[str, Any] = {}
        for option in options():
            source, raw = option.given(flags, environ)
            try:
                values[option.name] = option.parse(raw)
            except ValueError:
                faults.append(f"{source}={raw!r} is not {option.expected}")
                continue
            faults.extend(
                f"{source}={raw}: {fault}" for fault in option.faults(values[option.name])
            )
            if trains and raw == REQUIRED and option.required:
                faults.append(f"{option.env} is required: {option.meaning}")
        faults.extend(_faults_across(values))
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
        for name in ("data_uri", "output_uri", "eval_uri", "base_model", "base_cache_uri"):
            record[name] = publishable_uri(record[name])
        return record

    def changing_the_result(self) -> dict[str, Any]:
        """The settings that two runs must share to end in the same weights, JSON-ready."""
        record = self.to_dict()
        return {o.name: record[o.name] for o in options() if o.changes_result}


@dataclass(frozen=True)
class Option:
    """The public face of one field of `Settings`."""

    field: Field[Any]

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def meaning(self) -> str:
        return str(self.field.metadata["meaning"])

    @property
    def shown_default(self) -> str:
        return str(self.field.metadata["shown"])

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.field.metadata["choices"])

    @property
    def changes_result(self) -> bool:
        return bool(self.field.metadata["changes_result"])

    @property
    def required(self) -> bool:
        return self.shown_default == "required"

    @property
    def expected(self) -> str:
        return _EXPECTED[self.field.metadata["parse"]]

    def given(self, flags: Mapping[str, str | None], environ: Mapping[str, str]) -> tuple[str, str]:
        """Where the value comes from and what was typed; an empty variable counts as unset."""
        flag = flags.get(self.name)
        if flag is not None:
            return self.flag, flag
        if given := _unquoted(environ.get(self.env, "")):
            return self.env, given
        return self.env, str(self.field.metadata["default"])

    def parse(self, raw: str) -> Any:
        value = self.field.metadata["parse"](raw)
        return self._spellings.get(value.lower(), value) if self.choices else value

    @property
    def _spellings(self) -> dict[str, str]:
        """Every way in which a choice may be written, in small letters."""
        spellings = {choice.lower(): choice for choice in self.choices}
        if "yes" in spellings:
            spellings |= dict.fromkeys(("true", "on", "1"), "yes")
            spellings |= dict.fromkeys(("false", "off", "0"), "no")
        return spellings

    def faults(self, value: Any) -> Iterator[str]:
        limits = self.field.metadata
        if self.choices and value not in self.choices:
            yield f"needs one of {', '.join(self.choices)}"
        if value is None or not isinstance(value, int | float):
            return
        if value != value or abs(value) == float("inf"):
            yield "needs a finite number"
        if limits["least"] is not None and value < limits["least"]:
            yield f"needs at least {limits['least']:g}"
        if limits["above"] is not None and value <= limits["above"]:
            yield f"needs more than {limits['above']:g}"
        if limits["most"] is not None and value > limits["most"]:
            yield f"needs at most {limits['most']:g}"


def options() -> list[Option]:
    """Every setting in the order it is documented."""
    return [Option(f) for f in fields(Settings)]


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One fault for each `QLORA_*` variable that is no setting, with the nearest real name."""
    known = [option.env for option in options()]
    faults = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            faults.append(f"{name} is not a setting; did you mean {near}?")
    return faults


def _unquoted(raw: str) -> str:
    """Without the quotes that `docker --env-file` and Kubernetes leave around a value."""
    text = raw.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] in "\"'" else text


def _spoilt_variables(environ: Mapping[str, str]) -> list[str]:
    """Faults of other tools' variables that no tool forgives; their values are never shown."""
    return [
        f"{name} has quotes, a space or a line break around its value; take them away "
        "(`echo -n` makes no line break, env files need no quotes)"
        for name, value in sorted(environ.items())
        if name.startswith(("AWS_", "HF_", "WANDB_", "MLFLOW_")) and _unquoted(value) != value
    ]


def _faults_across(values: Mapping[str, Any]) -> Iterator[str]:
    """Faults that concern more than one value or the form of one."""
    for name in ("data_uri", "output_uri", "eval_uri", "base_cache_uri"):
        yield from uri_faults(ENV_PREFIX + name.upper(), values.get(name, ""))
    if values.get("base_model", "").startswith(("s3:", "builtin:")):
        yield from _base_model_faults(values["base_model"])
    run_id = values.get("run_id", "")
    if run_id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_id):
        yield f"{ENV_PREFIX}RUN_ID={run_id!r} needs letters, digits, '.', '_' and '-' only"
    if not values.get("target_modules", ("unparsed",)):
        yield f"{ENV_PREFIX}TARGET_MODULES is empty; name modules or use {ALL_LINEAR}"
    repo = values.get("hub_repo", "")
    if repo and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repo):
        yield f"{ENV_PREFIX}HUB_REPO={repo!r} needs the form owner/name"
    unknown = [name for name in values.get("report_to", ()) if name not in TRACKERS]
    if unknown:
        yield f"{ENV_PREFIX}REPORT_TO={','.join(unknown)} needs some of {', '.join(TRACKERS)}"
    interval = values.get("checkpoint_every", Interval(steps=1))
    if not 0 < (interval.minutes or interval.steps or 0) < float("inf"):
        yield f"{ENV_PREFIX}CHECKPOINT_EVERY={interval} needs more than 0"
    micro, effective = values.get("batch_size"), values.get("effective_batch_size", 1)
    if micro and effective % micro:
        yield (
            f"{ENV_PREFIX}EFFECTIVE_BATCH_SIZE={effective} needs to be a multiple of "
            f"{ENV_PREFIX}BATCH_SIZE={micro}"
        )


def _base_model_faults(base_model: str) -> Iterator[str]:
    if base_model.startswith("s3:"):
        yield from uri_faults(ENV_PREFIX + "BASE_MODEL", base_model)
    elif base_model != "builtin:tiny":
        yield f"{ENV_PREFIX}BASE_MODEL={base_model}: the only built-in model is builtin:tiny"
