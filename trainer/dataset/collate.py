"""Blocks to the tensors of a micro-batch."""

from typing import Any

import torch

from trainer.kernels.attention import Documents


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
