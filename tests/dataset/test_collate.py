"""Blocks become the tensors of a micro-batch, and where its documents start is known."""

import numpy as np
import torch

from trainer.dataset.collate import collate, collate_for_engine, documents, one_document_a_row
from trainer.dataset.packing import Block
from trainer.labels import IGNORED


def row(*positions: int) -> dict[str, np.ndarray]:
    at = np.array(positions, np.int64)
    return vars(Block(at + 10, at + 20, at))


def test_blocks_are_stacked_and_no_attention_mask_joins_them() -> None:
    batch = collate([row(0, 1, 2), row(0, 1, 0)])
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["input_ids"].tolist() == [[10, 11, 12], [10, 11, 10]]
    assert all(column.dtype == torch.int64 for column in batch.values())


def test_documents_start_where_positions_do_also_in_the_next_block() -> None:
    found = documents(collate_for_engine([row(0, 1, 2, 3), row(0, 0, 1, 0)]))
    assert found.starts.tolist() == [0, 4, 5, 7, 8] and found.starts.dtype == torch.int32
    assert found.longest == 4


def test_a_worker_without_a_block_gets_nothing() -> None:
    assert collate([]) == {} and collate_for_engine([]) == {}


def test_each_document_gets_a_row_of_its_own_and_none_is_longer_than_the_whole() -> None:
    rows = [row(0, 1, 2, 3, 0, 1), row(0, 1, 2, 0, 1, 0)]
    rows[1]["labels"][5] = IGNORED  # what is left is padding
    first, second = one_document_a_row(collate(rows))
    assert first["input_ids"].tolist() == [[10, 11, 12, 13], [10, 11, 12, 0], [10, 11, 0, 0]]
    assert first["labels"].tolist() == [
        [20, 21, 22, 23],
        [20, 21, 22, IGNORED],
        [20, 21] + 2 * [IGNORED],
    ]
    assert first["position_ids"].tolist() == 3 * [[0, 1, 2, 3]]
    assert second["input_ids"].tolist() == [[10, 11]]


def test_a_batch_without_a_trained_token_keeps_one_document() -> None:
    block = row(0, 1, 0)
    block["labels"][:] = IGNORED
    (part,) = one_document_a_row(collate([block]))
    assert part["input_ids"].tolist() == [[10, 11]]
