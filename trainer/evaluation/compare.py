"""Base against tuned on the held-out data: loss, perplexity, answers right and alike, samples."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from trainer.dataset.eval_questions import Question
from trainer.dataset.holdout import HELD_OUT_LOSS, loss_name
from trainer.dataset.packing import Block
from trainer.evaluation.answer_metrics import (
    contains,
    ends_in_number,
    last_number,
    same_answer,
    same_words,
    token_f1,
    told,
)
from trainer.evaluation.asking import WITHOUT_LIMIT, Asking, ask, ask_trained
from trainer.evaluation.certainty import sure_of
from trainer.evaluation.general import GeneralBlocks, general_blocks
from trainer.evaluation.loss import held_out_loss
from trainer.evaluation.merged_answers import MergedAnswers, same_when_merged
from trainer.evaluation.refusals import Refusals, count_refusals
from trainer.evaluation.samples import Sample, chosen
from trainer.inference.reply import Reply
from trainer.monitoring.counting import counting
from trainer.runtime.log import figures
from trainer.tokenization.record_tokenizer import stop_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

MOST_MERGED = 32  # answers of each kind that are compared with the merged model's

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """One thing that is measured: a field of `Scores`, and how it is named and written."""

    key: str
    label: str
    format: str
    """of `format()`, wherever scores stand in a table"""
    explained: str
    """its label for whoever has only the adapter and its card"""
    headline: str | None = None
    """of `format()`, in the first lines of the report; None where it is not among them"""

    @property
    def better(self) -> str:
        """Which of two values is."""
        return "higher" if self.format.endswith("%") or self.key == "judge" else "lower"

    def of(self, scores: "Scores") -> float | None:
        """Its value; None where it was not measured or is not finite."""
        value: float | None = getattr(scores, self.key)
        return value if is_finite(value) else None


SCORES = (
    Score("loss", HELD_OUT_LOSS, ".4f", "loss on held-out data", headline=".3f"),
    Score("perplexity", "perplexity", ",.2f", "perplexity"),
    Score("exact", "exact answers", ".0%", "exact answers", headline=".0%"),
    Score(
        "normalised",
        "exact, normalised",
        ".0%",
        "exact answers but for case, punctuation and articles",
    ),
    Score("contained", "contains reference", ".0%", "answers that contain the reference"),
    Score(
        "told",
        "tells what is new",
        ".0%",
        "numbers, or else words, of the reference beyond the question's that the answers have",
    ),
    Score("number", "last number right", ".0%", "answers whose last number is the reference's"),
    Score("f1", "token F1", ".0%", "token F1", headline=".0%"),
    Score("stopped", "stopped by itself", ".0%", "answers that stop by themselves", headline=".0%"),
    Score("general_text", "loss on general text", ".3f", "loss on general text, not trained"),
    Score("general_answers", "loss on general Q&A", ".3f", "loss on answers to general questions"),
    Score("judge", "judge's score", ".2f", "score by another model as judge", headline=".2f"),
)


@dataclass(frozen=True)
class Scores:
    """How one model does on the held-out data; None where there is none.

    `loss` is in nats a token, `end_loss` that of the tokens that end an answer or a document.
    `exact`, `normalised`, `contained` and `stopped` (ended by itself) are shares of the questions,
    `number` too, where most references end in a number, `f1` their mean token F1, `told` the mean
    share of the numbers (or words) that references tell beyond their questions. `general_text`
    and `general_answers` are losses on what every model that can speak has seen the like of,
    `judge` is the mean score of another model, 0 to 1.
    """

    loss: float | None = None
    end_loss: float | None = None
    perplexity: float | None = None
    exact: float | None = None
    normalised: float | None = None
    contained: float | None = None
    told: float | None = None
    number: float | None = None
    f1: float | None = None
    stopped: float | None = None
    general_text: float | None = None
    general_answers: float | None = None
    judge: float | None = None
    answers: tuple[str, ...] = field(repr=False, default=())
    replies: tuple[Reply, ...] = field(repr=False, compare=False, default=())

    @property
    def cut(self) -> list[bool]:
        """Of each answer whether the limit of tokens ended it, as far as that is known."""
        return [not reply.stopped for reply in self.replies] or [False] * len(self.answers)

    @classmethod
    def from_json(cls, record: Mapping[str, float | None]) -> "Scores":
        """What `figures` gave. A score that it lacks was not measured, one more is left out."""
        values: dict[str, Any] = {name: record.get(name) for name in cls().figures()}
        return cls(**values)

    def figures(self) -> dict[str, float | None]:
        """JSON-ready: JSON has no NaN."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        del record["answers"], record["replies"]
        return {name: value if is_finite(value) else None for name, value in record.items()}


@dataclass(frozen=True)
class Judgement:
    """Which model judged how many of the questions; `failure` says why not all."""

    model: str
    questions: int
    failure: str | None = None


@dataclass(frozen=True)
class WithPassages:
    """Both models with `passages` of the documents in view, asked the first `questions`."""

    passages: int
    questions: int
    base: Scores
    tuned: Scores


@dataclass(frozen=True)
class Evaluation:
    """The base and the tuned model on the same questions and blocks."""

    base: Scores
    tuned: Scores
    questions: tuple[Question, ...]
    trained: Scores | None = None
    """the tuned model's on `trained_count` questions that it was trained on"""
    trained_count: int = 0
    merged: MergedAnswers | None = None
    judgement: Judgement | None = None
    """by another model, where one was named"""
    left_out: int = 0
    """questions that there are too, and that were not asked for want of time"""
    with_passages: WithPassages | None = None
    """where documents were named"""
    refusals: Refusals | None = None
    """the tuned model's, where there are some or should be"""
    by: str = ""
    """what was held out, a HeldOutBy; where nothing was, blocks and questions are trained ones"""

    @property
    def loss_name(self) -> str:
        return loss_name(self.by)

    def figures(self) -> dict[str, float | None]:
        """All scores by name, such as `tuned_exact`."""
        sides = [("base", self.base), ("tuned", self.tuned)]
        if self.trained is not None:
            sides.append(("trained", self.trained))
        return {f"{s}_{n}": value for s, scores in sides for n, value in scores.figures().items()}

    @property
    def interval(self) -> str:
        """Between what the share of exact answers lies, and of which questions, in words."""
        return sure_of(self.tuned.exact or 0.0, len(self.questions), self.by, self.left_out)

    def samples(self, most: int) -> list[Sample]:
        """The first `most` questions with reference, base's and tuned answer.

        Where all of them are right and others are not, some of those take the last places.
        """
        base, tuned = self.base, self.tuned
        given = zip(base.answers, tuned.answers, base.cut, tuned.cut, strict=True)
        pairs = zip(self.questions, given, strict=True)
        return chosen([Sample(q.as_text, q.answer, *answers) for q, answers in pairs], most)


def compare(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    blocks: Sequence[Block],
    questions: Sequence[Question],
    trained_questions: Sequence[Question] = (),
    *,
    stored: "torch.dtype | None" = None,
    base: Scores | None = None,
    how: Asking = WITHOUT_LIMIT,
    by: str = "",
) -> Evaluation:
    """Score `model` without and with its adapter, with it on `trained_questions` too.

    Where the weights of its merged model would be `stored`, what that answers is found out too.
    `by` is what was held out, a HeldOutBy; `base` what a call before this one has found of the base
    on the same. The model is left in evaluation mode.
    """
    model.eval()
    ends, general = stop_ids(tokenizer), general_blocks(tokenizer)
    with how.answerer(model, tokenizer) as answerer:
        known = None if base is None else base.replies
        sides = 2 if base is None else 1
        with counting("answering", sides * len(questions) + len(trained_questions)):
            part, rest = how.divided() if trained_questions and questions else (how, how)
            replies = ask(answerer, questions, model.device.type, part, known)
            asked = questions[: len(replies.tuned)]
            trained = ask_trained(answerer, trained_questions, model.device.type, rest)
            trained_questions = trained_questions[: len(trained)]
    measured = len(blocks) + len(general.text) + len(general.answers)
    with counting("measuring losses", sides * measured):
        if base is None:
            with model.disable_adapter():
                base = score(_losses(model, blocks, ends, general), asked, replies.base)
        tuned = score(_losses(model, blocks, ends, general), asked, replies.tuned)
    looked_at = [r for part in (replies.tuned, trained) for r in part[:MOST_MERGED] if r.ids]
    evaluation = Evaluation(
        base,
        tuned,
        tuple(asked),
        score({}, trained_questions, trained) if trained_questions else None,
        len(trained_questions),
        _when_merged(model, looked_at, stored),
        left_out=len(questions) - len(asked),
        refusals=count_refusals(asked, tuned.answers, how.refusal),
        by=by,
    )
    _log(evaluation)
    return evaluation


def _when_merged(
    model: Any, replies: Sequence[Reply], stored: "torch.dtype | None"
) -> MergedAnswers | None:
    if stored is None or not replies:
        return None
    return MergedAnswers(len(replies), same_when_merged(model, replies, stored))


def _log(evaluation: Evaluation) -> None:
    base, tuned = evaluation.base, evaluation.tuned
    if base.loss is not None and tuned.loss is not None:
        log.info(
            "%s %.4f before, %.4f after",
            evaluation.loss_name,
            base.loss,
            tuned.loss,
            extra=figures(before=base.loss, after=tuned.loss),
        )
    if base.exact is not None and tuned.exact is not None:
        log.info(
            "asked %d%s questions: %.0f right before, %.0f right after (%s)",
            asked := len(evaluation.questions),
            f" of {evaluation.left_out + asked}" if evaluation.left_out else "",
            base.exact * asked,
            tuned.exact * asked,
            evaluation.interval,
            extra=figures(before=base.exact, after=tuned.exact),
        )
    if (merged := evaluation.merged) is not None:
        log.info(
            "merged into one model, as the commands merge and export do, %s",
            merged.in_words,
            extra=figures(same=merged.same, asked=merged.asked),
        )


def _losses(
    model: Any, blocks: Sequence[Block], ends: Sequence[int], general: GeneralBlocks
) -> dict[str, float | None]:
    """Those of the model as it stands, by the names of `Scores`."""
    loss, end_loss = held_out_loss(model, blocks, ends) if blocks else (None, None)
    return {
        "loss": loss,
        "end_loss": end_loss,
        "general_text": held_out_loss(model, general.text)[0],
        "general_answers": held_out_loss(model, general.answers)[0],
    }


def score(
    losses: Mapping[str, float | None],
    questions: Sequence[Question],
    replies: Sequence[Reply],
) -> Scores:
    """One model's scores: its `losses` by name, and its replies to the questions."""
    loss = losses.get("loss")
    pairs = list(zip(questions, replies, strict=True))
    return Scores(
        **losses,
        perplexity=math.exp(min(loss, 700.0)) if loss is not None else None,
        exact=_mean(same_answer(r.text, q.answer) for q, r in pairs),
        normalised=_mean(same_words(r.text, q.answer) for q, r in pairs),
        contained=_mean(contains(r.text, q.answer) for q, r in pairs),
        told=_mean(
            share for q, r in pairs if (share := told(r.text, q.answer, q.question)) is not None
        ),
        number=_mean(last_number(r.text) == last_number(q.answer) for q, r in pairs)
        if _are_arithmetic(questions)
        else None,
        f1=_mean(token_f1(r.text, q.answer) for q, r in pairs),
        stopped=_mean(r.stopped for _, r in pairs),
        answers=tuple(reply.text for reply in replies),
        replies=tuple(replies),
    )


def _are_arithmetic(questions: Sequence[Question]) -> bool:
    """Whether most answers are a number: elsewhere the last may be one of the question's words."""
    return 2 * sum(ends_in_number(q.answer) for q in questions) > len(questions)


def is_finite(value: float | None) -> bool:
    """Whether there is a value, and it is a number."""
    return value is not None and math.isfinite(value)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
