"""How many of an adapter's answers its merged model gives too, without generating them again.

A greedy answer is repeated exactly when each of its tokens is the likeliest behind those before
it. So one pass over questions with their answers, many in a block, says of each answer whether
the merged model would give it: on a GPU the time of a token or two. On a CPU it takes as long as
to read them twice, and to give short answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.dataset.collate import collate
from trainer.dataset.packing import Block
from trainer.evaluation.loss import stacked, trained_logits
from trainer.inference.as_merged import as_merged
from trainer.inference.precision import compute_precision
from trainer.inference.reply import Reply
from trainer.labels import IGNORED
from trainer.monitoring.counting import Add, counting
from trainer.runtime.wording import counted

if TYPE_CHECKING:
    import torch

BLOCK_TOKENS = 2048  # of questions with their answers that are read together
SAME_MERGED = 0.95  # of the answers; a merged model that gives fewer is another one


@dataclass(frozen=True)
class MergedAnswers:
    """Of the answers to `asked` questions, how many the merged model gives in the same words."""

    asked: int
    same: int

    @property
    def is_as_good(self) -> bool:
        return self.same >= SAME_MERGED * self.asked

    @property
    def in_words(self) -> str:
        """What that means for whoever wants to merge."""
        said = f"it answers {self.same} of {counted(self.asked, 'question')} as it does unmerged"
        if self.is_as_good:
            return f"{said}: either can be used"
        return f"{said}; use the adapter on its base in four bits instead"


def same_when_merged(model: Any, replies: Sequence[Reply], stored: "torch.dtype") -> int:
    """How many of `replies`, `model`'s own with its adapter, its merged model gives as well.

    `stored` is the dtype in which the merged weights are written. Compared is which tokens both
    would choose behind each part of an answer, by the same passes: what comes from another
    kernel or from a repetition penalty is in both.
    """
    text = model.config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or BLOCK_TOKENS
    blocks = _blocks(replies, min(BLOCK_TOKENS, longest))  # some have a mask of that size
    longest = max((len(block.labels) for block in blocks), default=1)
    together = list(stacked(model, blocks, longest))
    with counting("merged answers", 2 * len(blocks)) as add:
        adapter = [chosen for some in together for chosen in _chosen(model, some, add)]
        with as_merged(model, stored):
            merged = [chosen for some in together for chosen in _chosen(model, some, add)]
    return sum(
        int(np.logical_and.reduceat(before == after, _starts(block)).sum())
        for block, before, after in zip(blocks, adapter, merged, strict=True)
    )


def _blocks(replies: Sequence[Reply], most: int) -> list[Block]:
    """Questions with answers in their order, as many in a block as `most` tokens hold."""
    blocks, together, size = [], list[Reply](), 0
    for reply in replies:
        length = len(reply.prompt_ids) + len(reply.ids)
        if together and size + length > most:
            blocks.append(_block(together))
            together, size = [], 0
        together, size = [*together, reply], size + length
    return [*blocks, *([_block(together)] if together else [])]


def _block(replies: Sequence[Reply]) -> Block:
    tokens = [np.array([*reply.prompt_ids, *reply.ids]) for reply in replies]
    labels = [np.array([*[IGNORED] * len(r.prompt_ids), *r.ids]) for r in replies]
    positions = [np.arange(len(part)) for part in tokens]
    return Block(np.concatenate(tokens), np.concatenate(labels), np.concatenate(positions))


def _starts(block: Block) -> Any:
    """Where among its labelled tokens each answer begins."""
    answered = block.labels != IGNORED
    begins = answered & ~np.concatenate([[False], answered[:-1]])
    return np.flatnonzero(begins[answered])


def _chosen(model: Any, blocks: Sequence[Block], add: Add) -> list[Any]:
    """The likeliest token at each of the answers' places, int64 [N] for each block."""
    import torch

    longest = max(len(block.labels) for block in blocks)
    batch = collate([vars(_padded(block, longest)) for block in blocks])
    places = (batch["labels"][:, 1:] != IGNORED).nonzero()
    with torch.no_grad(), compute_precision(model):
        chosen = torch.empty(len(places), dtype=torch.int64, device=model.device)
        for at, logits in trained_logits(model, batch, places):
            chosen[at] = logits.argmax(-1)
    add(len(blocks))
    ends = np.cumsum(np.bincount(places[:, 0].numpy(), minlength=len(blocks)))
    return np.split(chosen.cpu().numpy(), ends[:-1])


def _padded(block: Block, length: int) -> Block:
    """With one more document behind it, of which no token counts."""
    more = length - len(block.labels)
    none = np.zeros(more, np.int64)
    return Block(
        np.concatenate([block.input_ids, none]),
        np.concatenate([block.labels, none + IGNORED]),
        np.concatenate([block.position_ids, np.arange(more)]),
    )
