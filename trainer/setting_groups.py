"""Every option of the job, defined once and in groups: name, type, default, meaning and limits."""

from dataclasses import dataclass
from pathlib import Path

from trainer.options import (
    FOLDER,
    INTERVAL,
    NAMES,
    NUMBER,
    NUMBER_OR_AUTO,
    NUMBER_OR_UNSET,
    PLACE,
    WHOLE,
    WHOLE_OR_AUTO,
    WHOLE_OR_UNSET,
    Interval,
    neutral,
    option,
    place,
)
from trainer.setting_checks import (
    ALL_LINEAR,
    endpoint_with_model,
    ip_address,
    known_base,
    known_trackers,
    name_of_a_run,
    owner_and_name,
    some_modules,
    some_time,
    some_words,
    whole_micro_batches,
)
from trainer.uris import FORMS

GUESSED = "guessed from usual names"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is trained on, and how it is read."""

    data_uri: str = place(f"training data: folder, file or {FORMS}", required=True)
    question_column: str = option("", "column that holds the questions", shown=GUESSED)
    answer_column: str = option("", "column that holds the answers", shown=GUESSED)
    text_column: str = option("", "column that holds plain text", shown=GUESSED)
    system_prompt: str = option(
        "", "system prompt of records that have none; the adapter is asked with it too"
    )
    max_length: int = option("512", "tokens in a block", WHOLE, least=16)
    max_skipped_share: float = option(
        "0.1",
        "share of files and records that may be skipped or fully masked before the run fails",
        NUMBER,
        least=0,
        most=1,
    )


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """What is made of documents that hold no questions, and of records with one wording each."""

    prepare: str = neutral(
        "auto",
        "`auto` has a base that follows instructions make questions of documents alone, and trains "
        "those; `wordings` has it also ask the questions of records in other words, and trains "
        "those too; `never` trains the data as they stand",
        choices=("auto", "wordings", "never"),
    )
    refusal: str = neutral(
        "The documents do not say.",
        "the answer to what the documents do not say, in your words; `never`: nothing is refused",
        check=some_words,
    )
    refusal_share: float = neutral(
        "0",
        "share of the questions made that the documents do not answer, and that are trained to be "
        "refused: for servers that do not read `known_words.json`",
        NUMBER,
        least=0,
        most=0.5,
    )
    teacher_url: str = neutral(
        "",
        "OpenAI-compatible endpoint whose model words the questions of `prepare`, "
        "`http://host/v1`: passages are sent there; its key is `OPENAI_API_KEY`",
        shown="the base model",
        check=endpoint_with_model,
    )
    teacher_model: str = neutral("", "the teacher's name at `QLORA_TEACHER_URL`")

    @property
    def refuses(self) -> bool:
        return self.refusal.casefold() != "never"


@dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """The model that is adapted."""

    base_model: str = option(
        "NousResearch/Llama-2-7b-hf",
        f"base model: hub id, folder, {FORMS} or `builtin:tiny`",
        PLACE,
        check=known_base,
    )
    base_revision: str = option("main", "hub revision of the base model")
    base_cache_uri: str = place(
        f"folder or {FORMS} where the quantised base is kept for the next run", shown="not kept"
    )
    precision: str = option(
        "auto",
        "`auto` is bf16 from compute capability 8.0, fp16 below (T4), fp32 on a CPU",
        choices=("auto", "fp16", "bf16", "fp32"),
    )
    engine: str = option(
        "auto",
        "`auto` trains the families that it knows (Llama, Mistral, Qwen, Gemma, Phi, …) with the "
        "project's own fast engine, `stock` all with transformers and peft alone",
        choices=("auto", "stock"),
    )
    sharding: str = neutral(
        "auto",
        "several workers hold the base whole each (`ddp`) or in parts together (`fsdp`); `auto` in "
        "parts only where it does not fit whole",
        choices=("auto", "ddp", "fsdp"),
    )


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What is trained."""

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
        check=some_modules,
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How long, how fast, in what portions."""

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
        check=whole_micro_batches,
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
    neftune_alpha: float = option(
        "0",
        "noise on the embeddings of what is trained (NEFTune), for records in one wording: 5 to "
        "25, the less the smaller the embeddings are",
        NUMBER,
        least=0,
        most=1000,
    )
    seed: int = option("42", "every random choice", WHOLE, least=0, most=2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is asked of the result, and when it is refused."""

    eval_uri: str = place(
        "separate evaluation data, same formats as the training data", shown="held out of the data"
    )
    keep: str = option(
        "best",
        "which step is published: `best` by held-out loss and answers, ending early when nothing "
        "improves, or the `last`",
        choices=("best", "last"),
    )
    max_loss_ratio: float = neutral(
        "0.99",
        "held-out loss after training as a share of the base model's; above it the adapter is "
        "rejected: it learned nothing",
        NUMBER,
        above=0,
    )
    max_forgetting: float | None = neutral(
        "",
        "nats a token by which the loss on general text may rise; above it the adapter is rejected",
        NUMBER_OR_UNSET,
        least=0,
        shown="a warning above 1",
    )
    judge_url: str = neutral(
        "",
        "OpenAI-compatible endpoint whose model also scores the answers, `http://host/v1`; its key "
        "is `OPENAI_API_KEY`",
        shown="no judge",
        check=endpoint_with_model,
    )
    judge_model: str = neutral("", "the judge's name at `QLORA_JUDGE_URL`")


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """Where things lie and how stores are spoken to."""

    output_uri: str = place(f"where the run is published: folder or {FORMS}", required=True)
    hub_repo: str = neutral(
        "",
        "also push the adapter to this model on the Hugging Face hub, `owner/name`; a new one is "
        "private",
        shown="not pushed",
        check=owner_and_name,
    )
    scratch_dir: Path = neutral(
        "",
        "local folder for downloads and checkpoints; keep it on a volume to survive a restart",
        FOLDER,
        shown="`qlora` in the temporary folder",
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


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run among several, and how it goes on."""

    run_id: str = neutral(
        "",
        "names the run; the same run id resumes",
        shown="derived from settings and data",
        check=name_of_a_run,
    )
    resume: str = neutral(
        "auto",
        "`auto` continues from the newest valid checkpoint, `never` starts over, "
        "`must` fails without a checkpoint",
        choices=("auto", "never", "must"),
    )
    checkpoint_every: Interval = neutral(
        "10m",
        "minutes (`10m`) or optimizer steps (`200`) between checkpoints",
        INTERVAL,
        check=some_time,
    )


@dataclass(frozen=True, kw_only=True)
class LoggingSettings:
    """What a run tells while it lasts."""

    log_format: str = neutral(
        "auto", "`auto` is text on a terminal and json elsewhere", choices=("auto", "text", "json")
    )
    log_level: str = neutral(
        "INFO", "how much is logged", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    report_to: tuple[str, ...] = neutral(
        "",
        "also report to `tensorboard`, `mlflow` or `wandb`, separated by commas",
        NAMES,
        shown="nothing",
        check=known_trackers,
    )
    metrics_port: int | None = neutral(
        "",
        "port that serves Prometheus metrics while the run lasts",
        WHOLE_OR_UNSET,
        least=1,
        most=65535,
        shown="off",
    )
    metrics_address: str = neutral(
        "0.0.0.0",
        "IP address of this machine on which they are served; 127.0.0.1 for itself alone",
        check=ip_address,
    )
