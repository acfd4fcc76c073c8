"""The loss of a model, as it stands, on blocks: of every trained token, logits never whole."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainer.dataset.collate import collate, one_document_a_row
from trainer.dataset.packing import Block
from trainer.engine.families import FAMILIES, class_of
from trainer.engine.support import keeps_state, why_not
from trainer.inference.precision import compute_precision
from trainer.labels import IGNORED
from trainer.models.probe import mixes_documents
from trainer.monitoring.counting import counting
from trainer.runtime.device import free_gpu_bytes

STACKED_TOKENS = 1024  # at once; what trains a block of half of them has the memory for it
MOST_STACKED = 65536  # on a GPU, where most of a small pass is starting kernels
LOGIT_ROWS = 2048  # rows of logits at once: 0.25 GiB in float32 for a vocabulary of 32,000


def held_out_loss(
    model: Any, blocks: Sequence[Block], ends: Sequence[int] = ()
) -> tuple[float, float | None]:
    """Mean cross-entropy in nats over every trained token of `blocks`, and over those in `ends`.

    The second is None where none of them is.
    """
    import torch

    losses, targets = [], []
    with (
        torch.no_grad(),
        compute_precision(model),
        counting("measuring losses", len(blocks)) as add,
    ):
        for some in stacked(model, blocks, len(blocks[0].labels) if blocks else 1):
            batch = collate([vars(block) for block in some])
            places = (batch["labels"][:, 1:] != IGNORED).nonzero()
            targets.append(batch["labels"][:, 1:][tuple(places.T)].numpy())
            losses.append(_token_losses(model, batch, places).cpu().numpy())
            add(len(some))
    loss, target = np.concatenate(losses), np.concatenate(targets)
    is_end = np.isin(target, list(ends))
    return (
        float(loss.mean()) if len(loss) else 0.0,
        float(loss[is_end].mean()) if is_end.any() else None,
    )


def stacked(model: Any, blocks: Sequence[Block], length: int) -> Iterator[Sequence[Block]]:
    """Of `blocks` of at most this length as many at once as `model` is to read; one at least."""
    rows = max(1, _stacked_tokens(model, length) // length)
    for start in range(0, len(blocks), rows):
        yield blocks[start : start + rows]


def _stacked_tokens(model: Any, length: int) -> int:
    """As many at once as half of a GPU's free memory is enough for, in blocks of this length."""
    if model.device.type == "cpu":
        return STACKED_TOKENS
    config = model.config.get_text_config()
    intermediate = getattr(config, "intermediate_size", 4 * config.hidden_size)
    values = 16 * config.hidden_size + 4 * intermediate + 3 * config.vocab_size
    mask = 4 * length  # bytes, where attention is given one
    room: int = free_gpu_bytes(model.device) // 2 // (values * 2 + mask)
    return min(max(STACKED_TOKENS, room), MOST_STACKED)


def _token_losses(model: Any, batch: dict[str, Any], places: Any) -> Any:
    """Float32 [N]: the loss at each of N `places`, int64 [N, 2]: a row, and one of labels[1:]."""
    import torch

    target_N = batch["labels"][:, 1:][tuple(places.T)].to(model.device)
    losses_N = torch.empty(len(target_N), device=model.device)
    for at, logits in trained_logits(model, batch, places):
        losses_N[at] = torch.nn.functional.cross_entropy(
            logits.float(), target_N[at], reduction="none"
        )
    return losses_N


def trained_logits(model: Any, batch: dict[str, Any], places: Any) -> Iterator[tuple[Any, Any]]:
    """Logits at N `places` in blocks [B, T], int64 [N, 2] of rows and indices into labels[1:],
    part by part: which of the N, and [at most LOGIT_ROWS, V].

    A model that sees over the end of a document gets each in a row of its own.
    """
    import torch

    wanted = torch.zeros_like(batch["labels"])
    wanted[tuple(places.T)] = 1
    batch = {name: values.to(model.device) for name, values in batch.items()}
    wanted = wanted.to(model.device)
    batch["labels"] = wanted.masked_fill(wanted == 0, IGNORED)
    place = wanted.flatten().cumsum(0) - 1  # among the N
    config = model.get_base_model().config
    mixes = why_not(config) is not None or keeps_state(config)
    separate = mixes and mixes_documents(model)
    for part in one_document_a_row(batch) if separate else [batch | {"token": _numbers(batch)}]:
        at = (part["labels"] != IGNORED).flatten().nonzero().flatten()
        inputs = {name: part[name] for name in ("input_ids", "position_ids")}
        those = place[part["token"].flatten()[at]].split(LOGIT_ROWS)
        yield from zip(those, _logits(model, inputs, at), strict=True)


def _numbers(batch: dict[str, Any]) -> Any:
    """Of the tokens of a batch, in its shape."""
    import torch

    shape = batch["labels"].shape
    return torch.arange(shape.numel(), device=batch["labels"].device).view(shape)


def _ends_with_its_head(config: Any) -> bool:
    """Whether the logits are the head's, neither scaled nor capped."""
    family = FAMILIES.get(class_of(config) or "")
    return family is not None and not family.divides_logits and why_not(config) is None


def _logits(model: Any, inputs: dict[str, Any], at: Any) -> Iterator[Any]:
    """[LOGIT_ROWS, V] of the tokens `at` of all rows, part by part.

    A model that the engine knows has nothing behind its head, so that they are never whole: for
    one block of 32,768 tokens they would take 4 GiB. Others may scale or cap theirs.
    """
    base = model.get_base_model()
    if not _ends_with_its_head(base.config):
        yield from model(**inputs, use_cache=False).logits.flatten(0, 1)[at].split(LOGIT_ROWS)
        return
    hidden_MH = base.model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    for rows in at.split(LOGIT_ROWS):
        yield base.lm_head(hidden_MH[rows])
