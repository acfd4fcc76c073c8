"""Whatever can be wrong with a run is found before anything is trained: what it needs, checked."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.dataset.domain import Domain
from trainer.dataset.inputs import Inputs, are_documents, domain_beside, fetch_inputs
from trainer.dataset.pipeline import Data
from trainer.errors import SettingsError
from trainer.evaluation.asking import Asking, asking_of_a_run
from trainer.evaluation.judge import check_judge
from trainer.models import base_model, hub
from trainer.models.locate import locate_base, note_folder
from trainer.models.residual_stream import check_precision
from trainer.monitoring import trackers
from trainer.monitoring.counting import waiting
from trainer.planner.schedule import Schedule, choose_schedule
from trainer.preparation.drafts import METHOD
from trainer.runs.fingerprint import fingerprint_of
from trainer.runs.library_versions import library_versions
from trainer.runs.publish import touch_latest
from trainer.runtime import selftest
from trainer.runtime.device import Device, Precision, choose_precision, find_device
from trainer.runtime.log import figures
from trainer.settings import Settings
from trainer.storage import Store, open_store
from trainer.tokenization import chat_template, record_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

QUESTIONS_RECIPE = "facts"  # of questions that were made of documents


@dataclass(frozen=True)
class AsksFirst:
    """Whether questions are made of the data first; `reason` is for whoever may want the other."""

    first: bool
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """A run that can start: everything is checked and on local disk but the base's weights."""

    settings: Settings
    output: Store
    base: base_model.Base
    device: Device
    precision: Precision
    inputs: Inputs
    fingerprint: str
    asks_first: bool = False
    """whether questions are made of the data, and trained in its place"""
    made: Path | None = None
    """the folder of what was made"""
    notes: tuple[str, ...] = ()
    """what the report says of that"""
    prepared: Domain | None = None
    """what the documents speak of that the data was made of before, by `prepare`"""

    @property
    def domain(self) -> Domain | None:
        """What the documents speak of that questions were made of."""
        if not self.settings.refuses:
            return None
        if self.made and self.inputs.documents:
            return Domain.read(self.made)
        return self.prepared

    def asking(self, training_s: float) -> Asking:
        """How its models are asked behind a training that took so long."""
        return asking_of_a_run(
            self.settings, self.base, self.precision, self.device, training_s, self.domain
        )


@waiting("getting ready")
def open_job(settings: Settings) -> Job:
    """Whatever can be wrong is found here, before anything is trained."""
    selftest.check_memory()  # before torch, whose import may already be too much
    refuse_output_among_data(settings)
    log.info("fine-tuning %s", settings.base_model, extra=figures(settings=settings.to_dict()))
    output = open_store(settings.output_uri, retry_minutes=settings.storage_retry_minutes)
    output.probe()
    touch_latest(output)
    base = locate_base(settings)
    base_model.check_settings(base, settings)
    note_folder(settings, base)
    found = find_device()
    selftest.check(found)
    precision = choose_precision(settings.precision, found)
    check_precision(base.config, base.name, precision)
    trackers.check(settings)
    if settings.hub_repo:
        hub.check_push(settings.hub_repo)
    inputs = fetch_inputs(settings)
    asking = decide_asking(settings, base, inputs)
    if asking.reason:
        log.info("%s", asking.reason)
    fingerprint = fingerprint_of(
        settings,
        base={"name": base.name, "revision": base.revision},
        precision=precision.name,
        data={f.name: f.sha256 for f in inputs.data},
        evaluation={f.name: f.sha256 for f in inputs.evaluation},
        libraries=library_versions(),
        preparation=_preparation(settings) if asking.first else None,
    )
    return Job(
        settings,
        output,
        base,
        found,
        precision,
        inputs,
        fingerprint,
        asking.first,
        prepared=domain_beside(inputs.data),
    )


def _preparation(settings: Settings) -> dict[str, Any]:
    """What decides which questions are made, and how those are trained."""
    how = settings.preparing() | {"prepare_method": METHOD}
    return how | settings.with_recipe(QUESTIONS_RECIPE).changing_the_result()


def decide_asking(settings: Settings, base: base_model.Base, inputs: Inputs) -> AsksFirst:
    """Whether questions are made of the data first, and how to have the other."""
    if settings.prepare == "wordings":
        return _decide_wordings(settings, base)
    is_prose_meant = (
        settings.prepare == "never"
        or settings.recipe == "style"
        or (inputs.evaluation and are_documents(inputs.evaluation))
    )
    if is_prose_meant or not are_documents(inputs.data):
        return AsksFirst(False)
    if (why := _why_not_asked(settings, base)) is not None:
        return AsksFirst(
            False,
            f"the data holds documents alone, and {why}: they are trained as they stand, which "
            "teaches how they are written; a QLORA_BASE_MODEL that follows instructions, or "
            "QLORA_TEACHER_URL, makes questions of them first, and those are trained",
        )
    return AsksFirst(
        True,
        "the data holds documents alone: questions and answers are made of them first, and trained "
        "in their place; QLORA_PREPARE=never trains the documents as they stand",
    )


def _decide_wordings(settings: Settings, base: base_model.Base) -> AsksFirst:
    if (why := _why_not_asked(settings, base)) is not None:
        return AsksFirst(
            False,
            f"{why}: QLORA_PREPARE=wordings adds none, and the data are trained as they stand",
        )
    return AsksFirst(True, "questions are made first, and trained beside the data's own")


def _why_not_asked(settings: Settings, base: base_model.Base) -> str | None:
    """Why questions cannot be asked for; None where a teacher is named, or the base may follow
    instructions."""
    if settings.teacher_url:
        return None
    if settings.base_model.startswith("builtin:"):  # it has a template, to be tried out with
        return f"{base.name} is too small to follow instructions"
    if not base.tokenizer().chat_template:
        return f"{base.name} has no chat template to follow instructions by"
    return None


def open_tokenizer(base: base_model.Base, settings: Settings) -> "PreTrainedTokenizerBase":
    """The base's, as the run uses it and publishes it."""
    tokenizer = base.tokenizer()
    if (reason := chat_template.ensure_chat_template(tokenizer)) is not None:
        log.info("%s", reason)
    if settings.system_prompt:
        record_tokenizer.give_system_prompt(tokenizer, settings.system_prompt)
    return tokenizer


def schedule_for(settings: Settings, base: base_model.Base, data: Data) -> Schedule:
    """How long and how fast a run trains on `data`."""
    return choose_schedule(
        settings,
        blocks=len(data.train),
        records=data.counts["records"],
        hidden=base.shape().hidden,
    )


def check_judge_of(job: Job, run_id: str) -> None:
    """Of a run that begins: one that goes on has work behind it that its judge must not end."""
    if job.settings.judge_url and not any(job.output.list(f"{run_id}/checkpoints/")):
        check_judge(job.settings)


def refuse_output_among_data(settings: Settings) -> None:
    """The next run would read this one's adapter, report and metrics as documents."""
    for name in ("data_uri", "eval_uri"):
        data, output = (_absolute(uri) for uri in (getattr(settings, name), settings.output_uri))
        if getattr(settings, name) and f"{output}/".startswith(f"{data}/"):
            raise SettingsError(
                f"QLORA_OUTPUT_URI={settings.output_uri} lies within QLORA_{name.upper()}, so that "
                "the next run would train on what this one publishes; name a place beside it"
            )


def _absolute(uri: str) -> str:
    return (uri if "://" in uri else str(Path(uri).resolve())).rstrip("/")
