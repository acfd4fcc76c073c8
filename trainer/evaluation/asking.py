"""How the models of an evaluation are asked, and for how long."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trainer.dataset.domain import Domain
from trainer.dataset.eval_questions import Question
from trainer.evaluation.answer_metrics import interval, same_answer
from trainer.inference.generate import Answerer
from trainer.inference.known_replies import KnownReplies
from trainer.inference.reply import Reply
from trainer.models.base_model import Base
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_S, SHARE = 30.0, 0.1  # seconds, and as a share of the training
PORTIONS = {"cpu": 32, "cuda": 128}  # questions; a GPU takes about as long for many as for few
FIRST = {"cpu": 8, "cuda": 128}  # of a limit's first portion, which shows how long one takes
HELD_OUT = 2 / 3  # of the time, where trained questions are asked too, of one model alone
NARROW = 0.06  # width of an interval that more questions would not make narrower by much


@dataclass(frozen=True)
class Asking:
    """By our own loop where it can, with what the base has said before, and for how long. Without
    a limit all questions are asked. An answer that contains the words of `refusal` is one."""

    engine: bool = True
    base_replies: KnownReplies | None = None
    limit_s: float | None = None
    refusal: str = ""
    domain: Domain | None = None
    """of the tuned model, which answers nothing else"""

    def answerer(self, model: Any, tokenizer: "PreTrainedTokenizerBase") -> Answerer:
        """Of the model as it is asked."""
        return Answerer(
            model,
            tokenizer,
            engine=self.engine,
            base_replies=self.base_replies,
            domain=self.domain,
        )

    def divided(self) -> tuple["Asking", "Asking"]:
        """For held-out questions and for trained ones."""
        if self.limit_s is None:
            return self, self
        held_out_s = HELD_OUT * self.limit_s
        rest_s = self.limit_s - held_out_s
        return replace(self, limit_s=held_out_s), replace(self, limit_s=rest_s)


WITHOUT_LIMIT = Asking()


def asking_of_a_run(
    settings: Settings,
    base: Base,
    precision: Precision,
    device: Device,
    training_s: float,
    domain: Domain | None = None,
) -> Asking:
    """For a tenth of the training's time, or so long that it is worth it at all."""
    name = f"{base.name} {base.revision} {precision.name} {device.name}"
    return Asking(
        engine=settings.engine != "stock",
        base_replies=KnownReplies(settings.scratch_dir / "answers", name),
        limit_s=most_seconds(training_s),
        refusal=settings.refusal,
        domain=domain,
    )


def most_seconds(training_s: float) -> float:
    """Of asking, behind a training that took so long."""
    return max(LEAST_S, SHARE * training_s)


@dataclass(frozen=True)
class Replies:
    """Of the base and of the tuned model, to the same questions."""

    base: list[Reply] = field(default_factory=list)
    tuned: list[Reply] = field(default_factory=list)


def ask(
    answerer: Answerer,
    questions: Sequence[Question],
    device: str,
    how: Asking,
    base: Sequence[Reply] | None = None,
) -> Replies:
    """Replies to the first of `questions`: in portions, until all are asked, time is over, or more
    would not say more. Where those of the `base` are known, to as many questions."""
    most = answerer.longest(questions)
    if base is not None:
        again = [question.turns for question in questions[: len(base)]]
        return Replies(list(base), answerer.replies(again, most))
    found = Replies()
    for portion in _portions(len(questions), device, how.limit_s):
        part = [question.turns for question in questions[portion]]
        found.base.extend(answerer.replies(part, most, tuned=False))
        found.tuned.extend(answerer.replies(part, most))
        if how.limit_s is not None and _is_narrow(questions, found.tuned):
            break
    return found


def ask_trained(
    answerer: Answerer, questions: Sequence[Question], device: str, how: Asking
) -> list[Reply]:
    """The tuned model's replies to the first of `questions`, as many as there is time for."""
    most, found = answerer.longest(questions), list[Reply]()
    for portion in _portions(len(questions), device, how.limit_s):
        part = [question.turns for question in questions[portion]]
        found.extend(answerer.replies(part, most))
    return found


def _portions(count: int, device: str, limit_s: float | None) -> Iterator[slice]:
    """Of so many questions; behind the first no more than the time that is left is for."""
    began, asked = time.monotonic(), 0
    while asked < count:
        size = PORTIONS[device]
        if limit_s is not None:
            spent_s = max(time.monotonic() - began, 1e-3)
            there_is_time = int((limit_s - spent_s) * asked / spent_s) if asked else FIRST[device]
            size = min(size, there_is_time)
        if size < 1:
            return
        yield slice(asked, asked + size)
        asked += size


def _is_narrow(questions: Sequence[Question], replies: Sequence[Reply]) -> bool:
    asked = zip(questions, replies, strict=False)
    right = sum(same_answer(reply.text, question.answer) for question, reply in asked)
    low, high = interval(right / len(replies), len(replies))
    return high - low < NARROW
