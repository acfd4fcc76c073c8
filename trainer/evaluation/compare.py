"""Base against tuned on the held-out data: loss, perplexity, answers right and alike, samples."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.dataset.eval_questions import Question
from trainer.dataset.packing import Block
from trainer.evaluation.answer_metrics import same_answer, token_f1
from trainer.evaluation.loss import held_out_loss
from trainer.inference.generate import answer
from trainer.runtime.log import figures
from trainer.tokenization.record_tokenizer import stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """How one model does on the held-out data; None where there is none.

    `end_loss` is the loss of the tokens that end an answer or a document. `exact` and `stopped`
    (ended by itself) are shares of the questions, `f1` their mean token F1.
    """

    loss: float | None
    end_loss: float | None
    perplexity: float | None
    exact: float | None
    f1: float | None
    stopped: float | None
    answers: tuple[str, ...] = field(repr=False, default=())

    def figures(self) -> dict[str, float | None]:
        """JSON-ready: JSON has no NaN."""
        record = asdict(self)
        del record["answers"]
        return {name: value if finite(value) else None for name, value in record.items()}


@dataclass(frozen=True)
class Evaluation:
    """The base and the tuned model on the same questions and blocks."""

    base: Score
    tuned: Score
    questions: tuple[Question, ...]

    def figures(self) -> dict[str, float | None]:
        """All scores by name, such as `tuned_exact`."""
        sides = ("base", self.base), ("tuned", self.tuned)
        return {f"{s}_{n}": value for s, score in sides for n, value in score.figures().items()}

    def samples(self, most: int) -> list[dict[str, str]]:
        """The first `most` questions with reference, base's and tuned answer.

        Where all of them are right and others are not, some of those take the last places.
        """
        answers = zip(self.questions, self.base.answers, self.tuned.answers, strict=True)
        rows = [
            {"question": q.question, "reference": q.answer, "base": base, "tuned": tuned}
            for q, base, tuned in answers
        ]
        wrong = [row for row in rows if not same_answer(row["tuned"], row["reference"])]
        if wrong and all(row not in wrong for row in rows[:most]):
            wrong = wrong[: max(1, most // 4)]
            return rows[: most - len(wrong)] + wrong
        return rows[:most]


def compare(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    blocks: Sequence[Block],
    questions: Sequence[Question],
) -> Evaluation:
    """Score `model` without and with its adapter. The model is left in evaluation mode."""
    model.eval()
    with model.disable_adapter():
        base = score(model, tokenizer, blocks, questions)
    tuned = score(model, tokenizer, blocks, questions)
    evaluation = Evaluation(base, tuned, tuple(questions))
    _log(evaluation)
    return evaluation


def _log(evaluation: Evaluation) -> None:
    base, tuned = evaluation.base, evaluation.tuned
    if base.loss is not None and tuned.loss is not None:
        log.info(
            "held-out loss %.4f before, %.4f after",
            base.loss,
            tuned.loss,
            extra=figures(before=base.loss, after=tuned.loss),
        )
    if base.exact is not None and tuned.exact is not None:
        log.info(
            "exact answers on %d held-out questions: %.0f %% before, %.0f %% after",
            len(evaluation.questions),
            100 * base.exact,
            100 * tuned.exact,
            extra=figures(before=base.exact, after=tuned.exact),
        )


def score(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    blocks: Sequence[Block],
    questions: Sequence[Question],
) -> Score:
    """One model's Score as it stands, adapter on or off."""
    loss, end_loss = held_out_loss(model, blocks, stop_ids(tokenizer)) if blocks else (None, None)
    replies = answer(model, tokenizer, questions)
    pairs = list(zip(questions, replies, strict=True))
    return Score(
        loss=loss,
        end_loss=end_loss,
        perplexity=math.exp(min(loss, 700.0)) if loss is not None else None,
        exact=_mean(same_answer(r.text, q.answer) for q, r in pairs),
        f1=_mean(token_f1(r.text, q.answer) for q, r in pairs),
        stopped=_mean(r.stopped for _, r in pairs),
        answers=tuple(reply.text for reply in replies),
    )


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
