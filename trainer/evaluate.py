"""Base against tuned on the held-out data: loss, perplexity, answers right and alike, samples."""

import contextlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.blocks import Block
from trainer.corpus import Conversation, Example
from trainer.device import out_of_memory
from trainer.engine import why_not
from trainer.log import figures
from trainer.prompts import IGNORED, question_ids, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MOST_QUESTIONS = 128  # answered twice; more would make the evaluation longer than a short run
MOST_ANSWER_TOKENS = 256
GENERATED_AT_ONCE = 4096  # tokens of keys and values, at least: 2 GiB for Llama-2-7B in 16 bits
LOGIT_ROWS = 2048  # rows of logits at once: 0.25 GiB in float32 for a vocabulary of 32,000
_ONE_TURN = ["user", "assistant"]


@dataclass(frozen=True)
class Question:
    """A held-out record with a single question and its reference answer."""

    question: str
    answer: str


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


def held_out_loss(
    model: Any, blocks: Sequence[Block], ends: Sequence[int] = ()
) -> tuple[float, float | None]:
    """Mean cross-entropy in nats over every trained token of `blocks`, and over those in `ends`.

    The second is None where none of them is.
    """
    import torch

    losses, targets = [], []
    with torch.no_grad(), compute_precision(model):
        for block in blocks:
            trained = torch.from_numpy(block.labels[1:] != IGNORED).nonzero().flatten()
            targets.append(block.labels[1:][trained.numpy()])
            losses.append(_token_losses(model, block, trained).cpu().numpy())
    loss, target = np.concatenate(losses), np.concatenate(targets)
    is_end = np.isin(target, list(ends))
    return (
        float(loss.mean()) if len(loss) else 0.0,
        float(loss[is_end].mean()) if is_end.any() else None,
    )


def _token_losses(model: Any, block: Block, trained: Any) -> Any:
    """Float32 [N]: the loss at each of the N positions `trained`, as index into labels[1:]."""
    import torch

    inputs = {
        name: torch.from_numpy(values)[None].to(model.device)
        for name, values in vars(block).items()
        if name != "labels"
    }
    target_N = torch.from_numpy(block.labels[1:])[trained].to(model.device)
    at_N = trained.to(model.device)
    parts = zip(_logits(model, inputs, at_N), target_N.split(LOGIT_ROWS), strict=True)
    return torch.cat(
        [
            torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")
            for logits, target in parts
        ]
    )


def _logits(model: Any, inputs: dict[str, Any], at_N: Any) -> Iterator[Any]:
    """Logits [LOGIT_ROWS, V] of the positions `at_N`, part by part.

    A model that the engine knows has nothing behind its head, so that they are never whole: for
    one block of 32,768 tokens they would take 4 GiB. Others may scale or cap theirs.
    """
    base = model.get_base_model()
    if why_not(base.config) is not None:
        yield from model(**inputs, use_cache=False).logits[0, at_N].split(LOGIT_ROWS)
        return
    hidden_TH = base.model(**inputs, use_cache=False).last_hidden_state[0]
    for rows in at_N.split(LOGIT_ROWS):
        yield base.lm_head(hidden_TH[rows])


@dataclass(frozen=True)
class Reply:
    """A generated answer; `stopped` says whether the model ended it by itself."""

    text: str
    stopped: bool


def answer(
    model: Any, tokenizer: "PreTrainedTokenizerBase", questions: Sequence[Question]
) -> list[Reply]:
    """Greedy answers to `questions`, at most twice as long as the longest reference."""
    references = [len(tokenizer(q.answer).input_ids) for q in questions]
    room = min(max(references, default=0) * 2 + 8, MOST_ANSWER_TOKENS)
    return replies_to(model, tokenizer, [q.question for q in questions], room)


def replies_to(
    model: Any, tokenizer: "PreTrainedTokenizerBase", questions: Sequence[str], room: int
) -> list[Reply]:
    """Greedy answers of at most `room` tokens, as many together as memory allows."""
    import torch

    prompts = [question_ids(tokenizer, question) for question in questions]
    at_once = max(1, _tokens_at_once(model) // (max(map(len, prompts), default=0) + room))
    replies: list[Reply] = []
    while len(replies) < len(prompts):
        some = prompts[len(replies) :][:at_once]
        try:
            replies += _generate(model, tokenizer, some, room)
            continue
        except RuntimeError as error:
            if len(some) == 1 or not out_of_memory(error):
                raise
        at_once = len(some) // 2
        torch.cuda.empty_cache()
    return replies


def _tokens_at_once(model: Any) -> int:
    """How many tokens' keys and values fit in half of the GPU memory that is free: a step of a 7B
    model takes about as long for forty answers as for ten."""
    import torch

    if model.device.type == "cpu":
        return GENERATED_AT_ONCE
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token_bytes = 2 * 2 * text.num_hidden_layers * heads * size
    device_free, total = torch.cuda.mem_get_info()
    cap = torch.cuda.get_per_process_memory_fraction() * total
    free = float(min(device_free, cap - torch.cuda.memory_reserved()))
    return max(GENERATED_AT_ONCE, int(free / 2 / token_bytes))


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


def token_f1(given: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, as SQuAD counts them.

    Without case and punctuation (Rajpurkar et al. 2016); articles stay, for not every text is
    English.
    """
    one, other = (Counter(re.findall(r"\w+", text.lower())) for text in (given, reference))
    if not one or not other:
        return float(one == other)
    shared = (one & other).total()
    return 2 * shared / (one.total() + other.total())


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _reply(tokenizer: "PreTrainedTokenizerBase", ids: list[int], ends: list[int]) -> Reply:
    length = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    text = str(tokenizer.decode(ids[:length], skip_special_tokens=True))
    return Reply(text.strip(), stopped=length < len(ids))


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
