"""Whether training was the right tool: the same questions with passages of the documents in view.

The passages are the best by BM25 (Robertson and Zaragoza 2009), which asks for no second model and
finds names and numbers as they are written.
"""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainer.dataset.eval_questions import Question
from trainer.dataset.passages import Passage
from trainer.evaluation.answer_metrics import interval
from trainer.evaluation.asking import WITHOUT_LIMIT, Asking, ask
from trainer.evaluation.compare import SCORES, Evaluation, Scores, WithPassages, score
from trainer.inference.generate import Answerer
from trainer.runtime.log import figures
from trainer.tokenization.record_tokenizer import question_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PASSAGES = 3  # as many as people put into a prompt; about 1,100 tokens
ROW_SCORES = ("told", "f1", "contained", "exact")
# The passages first, the request last: small models follow what they read last.
_PROMPT = "{passages}\n\nAnswer with what the passages above say: {question}"
# A character of a script without spaces is a word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class PassageIndex:
    """Finds the passages that share the rarest words with a question. There is one or more."""

    def __init__(self, found: Sequence[Passage]) -> None:
        # Where jax is installed beside, bm25s starts it: on a GPU it would take most of the memory.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import bm25s

        # Its logger is at DEBUG, whatever the job's is.
        logging.getLogger("bm25s").setLevel(logging.ERROR)
        self._passages = found
        self._index = bm25s.BM25()
        words = [_words(f"{p.section} {p.text}") for p in found]
        self._index.index(words, show_progress=False)

    def best(self, question: str, most: int = PASSAGES) -> list[Passage]:
        """At most `most`, the best first; none that shares no word with the question."""
        most = min(most, len(self._passages))
        numbers, scores = self._index.retrieve([_words(question)], k=most, show_progress=False)
        found = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
        return [self._passages[number] for number, value in found if value > 0]


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.casefold())


def compare_with_passages(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    evaluation: Evaluation,
    index: PassageIndex,
    how: Asking = WITHOUT_LIMIT,
) -> Evaluation:
    """`evaluation` with what both models answer to its questions with passages in view."""
    if not evaluation.questions:
        return evaluation
    with Answerer(model, tokenizer, engine=how.engine, base_replies=how.base_replies) as answerer:
        room = _room(model, answerer.longest(evaluation.questions))
        shown = [_shown(q, index, tokenizer, room) for q in evaluation.questions]
        replies = ask(answerer, shown, model.device.type, how)
    asked = evaluation.questions[: len(replies.tuned)]
    base, tuned = (score({}, asked, side) for side in (replies.base, replies.tuned))
    found = WithPassages(PASSAGES, len(asked), base, tuned)
    log.info(
        "with %d passages in view, the new in the reference is told: by the base %s, with the "
        "adapter %s",
        PASSAGES,
        *(_cell(scores, "told", len(asked)) for scores in (base, tuned)),
        extra=figures(base=base.told, tuned=tuned.told),
    )
    return replace(evaluation, with_passages=found)


def _room(model: Any, answer_tokens: int) -> int | None:
    """Tokens of a prompt; None where positions have no end."""
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    return longest and longest - answer_tokens


def _shown(
    question: Question,
    index: PassageIndex,
    tokenizer: "PreTrainedTokenizerBase",
    room: int | None,
) -> Question:
    """With its best passages in front, as many as there is room for."""
    for best in _fewer(index.best(question.question)):
        shown = replace(question, question=prompt(question.question, best))
        if room is None or len(question_ids(tokenizer, shown.turns)) <= room:
            return shown
    return question


def _fewer(best: list[Passage]) -> list[list[Passage]]:
    return [best[:count] for count in range(len(best), 0, -1)]


def prompt(question: str, best: Sequence[Passage]) -> str:
    """The question with passages in front of it."""
    texts = (f"{p.section}\n{p.text}" if p.section else p.text for p in best)
    return _PROMPT.format(passages="\n\n".join(texts), question=question)


def table(base: Scores, tuned: Scores, asked: int, found: WithPassages) -> list[list[str]]:
    """A head, and a row for each way to answer, nothing trained first: its name and ROW_SCORES."""
    seen = f"with {found.passages} passages"
    rows = [
        ("base", base, asked),
        (f"base {seen}", found.base, found.questions),
        ("adapter", tuned, asked),
        (f"adapter {seen}", found.tuned, found.questions),
    ]
    labels = {score.key: score.label for score in SCORES}
    head = ["95 % sure in brackets", *(labels[key] for key in ROW_SCORES)]
    return [head, *([who, *(_cell(s, key, n) for key in ROW_SCORES)] for who, s, n in rows)]


def _cell(scores: Scores, key: str, count: int) -> str:
    """A share with between what it lies: "63% (54-71%)"; "-" where it was not measured."""
    share = getattr(scores, key)
    if share is None:
        return "-"
    low, high = interval(share, count)
    return f"{share:.0%} ({100 * low:.0f}-{high:.0%})"
