"""The loss of a model, as it stands, on blocks: of every trained token, logits never whole."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainer.dataset.packing import Block
from trainer.engine.support import why_not
from trainer.inference.precision import compute_precision
from trainer.labels import IGNORED

LOGIT_ROWS = 2048  # rows of logits at once: 0.25 GiB in float32 for a vocabulary of 32,000


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

    target_N = torch.from_numpy(block.labels[1:])[trained].to(model.device)
    parts = zip(trained_logits(model, block, trained), target_N.split(LOGIT_ROWS), strict=True)
    return torch.cat(
        [
            torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")
            for logits, target in parts
        ]
    )


def trained_logits(model: Any, block: Block, trained: Any) -> Iterator[Any]:
    """Logits [LOGIT_ROWS, V] at the positions `trained`, int64 [N] into labels[1:], part by part.

    A model that the engine knows has nothing behind its head, so that they are never whole: for
    one block of 32,768 tokens they would take 4 GiB. Others may scale or cap theirs.
    """
    import torch

    at_N = trained.to(model.device)
    inputs = {
        name: torch.from_numpy(values)[None].to(model.device)
        for name, values in vars(block).items()
        if name != "labels"
    }
    base = model.get_base_model()
    if why_not(base.config) is not None:
        yield from model(**inputs, use_cache=False).logits[0, at_N].split(LOGIT_ROWS)
        return
    hidden_TH = base.model(**inputs, use_cache=False).last_hidden_state[0]
    for rows in at_N.split(LOGIT_ROWS):
        yield base.lm_head(hidden_TH[rows])
