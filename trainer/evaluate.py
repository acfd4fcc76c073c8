"""Base against tuned on the held-out data: loss, perplexity, exact answers and samples."""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.blocks import Block
from trainer.corpus import Conversation, Example
from trainer.log import figures
from trainer.prompts import question_ids, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MOST_QUESTIONS = 128  # answered twice; more would make the evaluation longer than a short run
MOST_ANSWER_TOKENS = 256
GENERATED_AT_ONCE = 4096  # tokens of keys and values: 2 GiB for Llama-2-7B in 16 bits
_ONE_TURN = ["user", "assistant"]


@dataclass(frozen=True)
class Question:
    """A held-out record with a single question and its reference answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Score:
    """How one model does on the held-out data.

    `exact` and `stopped` (ended by itself) are shares of the questions, None without any.
    """

    loss: float | None
    perplexity: float | None
    exact: float | None
    stopped: float | None
    answers: tuple[str, ...] = field(repr=False, default=())

    def figures(self) -> dict[str, float | None]:
        record = asdict(self)
        del record["answers"]
        return record


@dataclass(frozen=True)
class Evaluation:
    """The base and the tuned model on the same questions and blocks."""

    base: Score
    tuned: Score
    questions: tuple[Question, ...]

    def samples(self, most: int) -> list[dict[str, str]]:
        """The first `most` questions with reference, base's and tuned answer."""
        rows = zip(self.questions, self.base.answers, self.tuned.answers, strict=True)
        return [
            {"question": q.question, "reference": q.answer, "base": base, "tuned": tuned}
            for q, base, tuned in list(rows)[:most]
        ]


def questions_of(examples: Sequence[Example]) -> list[Question]:
    """The records of one question and one answer, at most MOST_QUESTIONS, in key order."""
    found = []
    for record in sorted(examples, key=lambda e: e.key):
        if isinstance(record, Conversation) and [m.role for m in record.messages] == _ONE_TURN:
            asked, answered = record.messages
            found.append(Question(asked.content, answered.content.strip()))
    return found[:MOST_QUESTIONS]


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
    loss = held_out_loss(model, blocks) if blocks else None
    replies = answer(model, tokenizer, questions)
    pairs = list(zip(questions, replies, strict=True))
    return Score(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)) if loss is not None else None,
        exact=_share(same_answer(r.text, q.answer) for q, r in pairs) if pairs else None,
        stopped=_share(r.stopped for _, r in pairs) if pairs else None,
        answers=tuple(reply.text for reply in replies),
    )


def held_out_loss(model: Any, blocks: Sequence[Block]) -> float:
    """Mean cross-entropy in nats over every trained token of `blocks`."""
    import torch

    total, tokens = 0.0, 0
    with torch.no_grad(), compute_precision(model):
        for block in blocks:
            inputs = {
                name: torch.from_numpy(values)[None].to(model.device)
                for name, values in vars(block).items()
            }
            labels_BT = inputs.pop("labels")
            logits_BTV = model(**inputs, use_cache=False).logits
            total += torch.nn.functional.cross_entropy(
                logits_BTV[0, :-1].float(), labels_BT[0, 1:], ignore_index=-100, reduction="sum"
            ).item()
            tokens += int((labels_BT[0, 1:] != -100).sum())
    return total / max(tokens, 1)


@dataclass(frozen=True)
class Reply:
    """A generated answer; `stopped` says whether the model ended it by itself."""

    text: str
    stopped: bool


def answer(
    model: Any, tokenizer: "PreTrainedTokenizerBase", questions: Sequence[Question]
) -> list[Reply]:
    """Greedy answers to `questions`, as many together as GENERATED_AT_ONCE allows."""
    prompts = [question_ids(tokenizer, q.question) for q in questions]
    references = [len(tokenizer(q.answer).input_ids) for q in questions]
    room = min(max(references, default=0) * 2 + 8, MOST_ANSWER_TOKENS)
    at_once = max(1, GENERATED_AT_ONCE // (max(map(len, prompts), default=0) + room))
    replies: list[Reply] = []
    for start in range(0, len(prompts), at_once):
        replies += _generate(model, tokenizer, prompts[start : start + at_once], room)
    return replies


def _generate(
    model: Any, tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[list[int]], room: int
) -> list[Reply]:
    """Answers of at most `room` tokens to prompts padded on the left."""
    import torch

    ends, longest = stop_ids(tokenizer), max(map(len, prompts))
    ids_BT = [[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts]
    mask_BT = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    with torch.no_grad(), compute_precision(model):
        out_BT = model.generate(
            input_ids=torch.tensor(ids_BT, device=model.device),
            attention_mask=torch.tensor(mask_BT, device=model.device),
            max_new_tokens=room,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=ends,
        )
    return [_reply(tokenizer, row[longest:].tolist(), ends) for row in out_BT]


@contextlib.contextmanager
def compute_precision(model: Any) -> Iterator[None]:
    """Run float32 adapter and 16-bit base together, as training does."""
    import torch

    dtype = model.get_input_embeddings().weight.dtype
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield


def same_answer(given: str, reference: str) -> bool:
    """Exact match, whitespace aside."""
    return " ".join(given.split()) == " ".join(reference.split())


def _reply(tokenizer: "PreTrainedTokenizerBase", ids: list[int], ends: list[int]) -> Reply:
    length = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    text = str(tokenizer.decode(ids[:length], skip_special_tokens=True))
    return Reply(text.strip(), stopped=length < len(ids))


def _share(hits: Iterator[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found)
