"""Blocks to the tensors of a micro-batch."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from trainer.kernels.attention import Documents
from trainer.labels import IGNORED


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack blocks to [B, T]. No attention mask: positions keep attention inside a document."""
    names = rows[0] if rows else ()  # of several workers one may have no blocks left
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in names}


def collate_for_engine(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same, and where documents start among all tokens of the batch: known without a GPU."""
    batch: dict[str, Any] = collate(rows)
    if not rows:
        return batch
    positions = batch["position_ids"].flatten()
    starts = (positions == 0).nonzero().flatten()
    bounds = torch.cat([starts, torch.tensor([len(positions)])])
    longest = int(bounds.diff().max())
    return batch | {"starts": bounds.int(), "longest": longest}


def documents(batch: dict[str, Any]) -> Documents:
    return Documents(batch["starts"], batch["longest"])


def one_document_a_row(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """A micro-batch [B, T] as others whose rows are its documents, longest first, padded on the
    right to the longest of each and none with more tokens than the whole had. `token` numbers the
    tokens as they were.

    For models that look over the end of a document. Documents without a trained token are left out,
    unless there are no others.
    """
    found = sorted(_documents_of(batch), key=lambda one: -len(one["labels"]))
    trained = [one for one in found if one["labels"].ne(IGNORED).any()] or found[:1]
    most = batch["labels"].numel()
    parts: list[list[dict[str, torch.Tensor]]] = []
    for one in trained:
        if parts and (len(parts[-1]) + 1) * len(parts[-1][0]["labels"]) <= most:
            parts[-1].append(one)
        else:
            parts.append([one])
    return [_padded(part) for part in parts]


def _documents_of(batch: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    flat = {name: batch[name].flatten() for name in ("input_ids", "labels", "position_ids")}
    flat["token"] = torch.arange(len(flat["labels"]), device=flat["labels"].device)
    starts = (flat["position_ids"] == 0).nonzero().flatten().tolist()
    bounds = [*starts, len(flat["labels"])]
    for start, end in pairwise(bounds):
        yield {name: values[start:end] for name, values in flat.items()}


def _padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    longest = len(rows[0]["labels"])
    ends = {"input_ids": 0, "labels": IGNORED, "token": 0}
    padded = {
        name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], True, end)
        for name, end in ends.items()
    }
    positions = torch.arange(longest, device=rows[0]["labels"].device)
    return padded | {"position_ids": positions.expand(len(rows), -1).contiguous()}
