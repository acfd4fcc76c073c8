"""The data of a run as the run itself would prepare it, before anything is trained."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.dataset import counts, pipeline
from trainer.dataset.eval_questions import MOST_QUESTIONS
from trainer.dataset.inputs import Inputs, fetch_inputs
from trainer.dataset.passages import passages_of
from trainer.errors import SettingsError
from trainer.evaluation.afterwards import Afterwards
from trainer.models import base_model
from trainer.models.locate import locate_base
from trainer.monitoring.counting import waiting
from trainer.planner.schedule import Schedule, choose_schedule, optimizer_steps
from trainer.preflight import (
    QUESTIONS_RECIPE,
    AsksFirst,
    decide_asking,
    open_tokenizer,
    schedule_for,
)
from trainer.preparation.statements import statements_of
from trainer.reporting.run_record import DataCounts
from trainer.runtime.wording import counted
from trainer.settings import Settings
from trainer.uris import is_bucket_uri

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION_TOKENS = 64  # of a question that is made of a statement, with its answer
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
    blocks: int
    """that are trained; of questions that are still to be made, about so many"""
    asking: AsksFirst
    """whether questions are made first; `reason` says then what is an estimate"""
    settings: Settings
    """as it trains: by another recipe where questions are made first, if none was named"""
    expected: int = 0
    """questions that are still to be made, about so many"""

    @cached_property
    def afterwards(self) -> Afterwards:
        """What comes behind the training."""
        found = Afterwards.of(self.data, self.tokenizer)
        if not self.expected:
            return found
        asked = min(self.expected, MOST_QUESTIONS)
        return replace(
            found,
            asked=asked,
            asked_base=asked,
            most=QUESTION_TOKENS,
            usual=QUESTION_TOKENS / 3,
            with_passages=True,
        )

    @property
    def counts(self) -> DataCounts:
        return DataCounts.from_json(self.data.counts)

    @property
    def trained_tokens(self) -> int:
        """In all passes, with what fills the blocks up."""
        return max(1, round(self.schedule.epochs * self.blocks * self.block_tokens))


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
    asking, blocks = decide_asking(settings, base, inputs), len(data.train)
    schedule, expected, as_trained = schedule_for(settings, base, data), 0, settings
    if asking.first:
        as_trained = _for_questions(settings, base)
    if asking.first and not data.counts["records"]:
        found = passages_of(settings, inputs.data)
        expected = max(1, sum(len(statements_of(passage)) for passage in found))
        blocks = -(-expected * QUESTION_TOKENS // settings.max_length)
        asking = replace(asking, reason=f"{asking.reason}; {_estimated(expected, len(found))}")
        hidden = base.shape().hidden
        schedule = choose_schedule(as_trained, blocks=blocks, records=expected, hidden=hidden)
    elif asking.first:
        asking = replace(asking, reason=f"{asking.reason}; what is said here is of the data alone")
    steps = optimizer_steps(settings, schedule, blocks)
    return Look(
        base,
        tokenizer,
        inputs,
        data,
        schedule,
        steps,
        settings.max_length,
        blocks,
        asking,
        as_trained,
        expected,
    )


def _for_questions(settings: Settings, base: base_model.Base) -> Settings:
    """By the recipe of questions, where its layers are the base's."""
    taught = settings.with_recipe(QUESTIONS_RECIPE)
    try:
        base_model.check_settings(base, taught)
    except SettingsError:
        return settings
    return taught


def _estimated(statements: int, passages: int) -> str:
    return (
        f"steps, schedule and time are estimates for {counted(statements, 'question')}, one for "
        f"each statement in {counted(passages, 'passage')}: prose gives fewer, facts up to four "
        "times as many. Making them comes first, on a CPU for up to minutes a passage"
    )


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
        meant = choose_schedule(
            replace(settings, epochs=None, max_steps=None),
            blocks=look.blocks,
            records=data.records,
            hidden=look.base.shape().hidden,
        ).epochs
        yield (
            f"each record is met {passes:g} times, and so little data needs {meant:.0f}: leave "
            f"{given} out"
        )
    if 0 < data.wordings < FEW_WORDINGS and settings.prepare != "wordings":
        yield (
            "most facts have one wording, which is learned by heart: asked in other words, a "
            "quarter to a half of them is known. Write each question in three or four ways, or "
            "have a base that follows instructions do it before it trains: `--prepare wordings`, "
            "or QLORA_PREPARE=wordings in the file of settings"
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
