"""The data of a run as the run itself would prepare it, before anything is trained."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.dataset import counts, pipeline
from trainer.dataset.inputs import Inputs, fetch_inputs
from trainer.errors import SettingsError
from trainer.models import base_model
from trainer.models.locate import locate_base
from trainer.monitoring.counting import waiting
from trainer.planner.schedule import Schedule, optimizer_steps
from trainer.preflight import AsksFirst, decide_asking, open_tokenizer, schedule_for
from trainer.reporting.run_record import DataCounts
from trainer.settings import Settings
from trainer.uris import is_bucket_uri

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEW_MEETINGS = 10  # of a record: five taught half of the facts at most, ten nine in ten
FEW_WORDINGS = 2.0  # questions for each answer: of facts in one, a quarter is known in others


@dataclass(frozen=True)
class Look:
    """What a run would train on, and for how long."""

    base: base_model.Base
    tokenizer: "PreTrainedTokenizerBase"
    inputs: Inputs
    data: pipeline.Data
    schedule: Schedule
    steps: int
    """optimizer steps"""
    block_tokens: int
    asking: AsksFirst
    """whether questions are made of the documents first, which this does not foresee"""

    @property
    def counts(self) -> DataCounts:
        return DataCounts.from_json(self.data.counts)

    @property
    def trained_tokens(self) -> int:
        """In all passes, with what fills the blocks up."""
        return max(1, round(self.schedule.epochs * len(self.data.train) * self.block_tokens))


def look_at(settings: Settings) -> Look:
    """By what a run uses itself, up to the schedule; of the base config and tokenizer are fetched.

    Raises JobError, as a run would; SettingsError for a folder that is not there.
    """
    if not is_bucket_uri(settings.data_uri) and not Path(settings.data_uri).exists():
        step = "name one folder that holds all of it" if "," in settings.data_uri else "correct it"
        raise SettingsError(
            f"QLORA_DATA_URI={settings.data_uri}: there is no such file or folder; {step}"
        )
    base = locate_base(settings)
    base_model.check_settings(base, settings)
    tokenizer = open_tokenizer(base, settings)
    inputs = fetch_inputs(settings)
    with _counts_unsaid(), waiting("reading the data"):
        data = pipeline.prepare(settings, inputs, tokenizer)
    schedule = schedule_for(settings, base, data)
    steps = optimizer_steps(settings, schedule, len(data.train))
    asking = decide_asking(settings, base, inputs)
    return Look(base, tokenizer, inputs, data, schedule, steps, settings.max_length, asking)


def too_little(look: Look, settings: Settings) -> Iterator[str]:
    """What is too short to be learned from, a sentence each with what to do."""
    data, passes = look.counts, look.schedule.epochs
    if not data.records:
        if look.asking.reason:
            yield look.asking.reason
        return
    if passes < FEW_MEETINGS and (settings.epochs or settings.max_steps):
        names = [n for n in ("max_steps", "epochs") if getattr(settings, n) is not None]
        given = " and ".join(f"QLORA_{name.upper()}" for name in names)
        yield (
            f"each record is met {passes:g} times, and a fact takes some twenty: leave {given} "
            "unset"
        )
    if 0 < data.wordings < FEW_WORDINGS and settings.prepare != "wordings":
        yield (
            "most facts have one wording, which is learned by heart: write each question in three "
            "or four ways, or have a base that follows instructions do it by QLORA_PREPARE=wordings"
        )


@contextlib.contextmanager
def _counts_unsaid() -> Iterator[None]:
    """What the log says of the data stands in the result."""
    said = logging.getLogger(counts.__name__)
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        yield
    finally:
        said.setLevel(level)
