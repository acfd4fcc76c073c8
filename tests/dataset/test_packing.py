"""Sequences are packed into blocks: none is lost, little is wasted, and none sees another."""

import hashlib
import random

import numpy as np
import pytest
import torch
from support.corpora import Encoded, encode, pack
from support.records import asked
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.corpus.examples import Completion, Text
from trainer.dataset import packing


def sequences(*lengths: int) -> list[Encoded]:
    ids = iter(range(10, 10**6))
    made = []
    for length in lengths:
        input_ids = [next(ids) for _ in range(length)]
        made.append(Encoded(input_ids, list(input_ids), hashlib.sha256(b"").hexdigest()))
    return made


def test_a_block_restarts_positions_and_masks_first_labels_and_padding():
    (block,) = pack(sequences(3, 2), 8, pad_id=0)
    assert block.input_ids.tolist() == [10, 11, 12, 13, 14, 0, 0, 0]
    assert block.labels.tolist() == [-100, 11, 12, -100, 14, -100, -100, -100]
    assert block.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]


def test_packing_keeps_every_sequence_and_wastes_little():
    chance = random.Random(5)
    lengths = [chance.randint(2, 100) for _ in range(3000)]
    blocks = pack(sequences(*lengths), 128, pad_id=0)
    kept = np.concatenate([block.input_ids for block in blocks])
    assert sorted(kept[kept > 0]) == list(range(10, 10 + sum(lengths)))
    assert all(
        len(column) == 128 and column.dtype == np.int64
        for block in blocks
        for column in (block.input_ids, block.labels, block.position_ids)
    )
    assert len(blocks) <= 1.01 * sum(lengths) / 128 + 1


def test_packing_is_the_same_every_time():
    first, second = (pack(sequences(5, 3, 3, 2, 7), 8, pad_id=0) for _ in range(2))
    assert [b.input_ids.tolist() for b in first] == [b.input_ids.tolist() for b in second]


def test_each_sequence_goes_where_the_least_room_is_left():
    blocks = pack(sequences(6, 5, 3, 2), 8, pad_id=0)
    assert [np.count_nonzero(block.input_ids) for block in blocks] == [8, 8]


def test_a_sequence_longer_than_a_block_is_an_error():
    with pytest.raises(ValueError, match="9 tokens does not fit a block of 8"):
        pack(sequences(9), 8, pad_id=0)


def test_no_sequences_give_no_blocks(llama):
    encoded, _ = encode([], llama, 64)
    packed = pack(encoded, 64, pad_id=0)
    assert (list(packed), packed.padding_share) == ([], 0)


def test_blocks_are_a_sequence_and_know_their_padding():
    packed = pack(sequences(60, 50, 3), 64, pad_id=0)
    assert packed.padding_share == pytest.approx(1 - 113 / 128)
    assert [block.input_ids[0] for block in packed[:]] == [10, 70]
    assert packed[-1].input_ids[0] == 70
    with pytest.raises(IndexError):
        packed[2]


def test_more_sequences_than_are_packed_together_lose_none(monkeypatch):
    lengths = [random.Random(3).randint(2, 30) for _ in range(500)]
    monkeypatch.setattr(packing, "_PACKED_TOGETHER", 128)
    kept = np.concatenate([block.input_ids for block in pack(sequences(*lengths), 32, pad_id=0)])
    assert sorted(kept[kept > 0]) == list(range(10, 10 + sum(lengths)))


def test_attention_stays_inside_a_sequence_of_a_block(llama):
    """A packed sequence's summed loss is its loss alone: no attention mask is passed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(llama),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()

    def summed_loss(**columns: list[int]) -> float:
        batch = {name: torch.tensor([column]) for name, column in columns.items()}
        with torch.no_grad():
            labels = batch.pop("labels")
            logits = model(**batch, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
        ).item()

    examples = [asked("Why?", "Because."), Text("The lazy dog sleeps."), Completion("A", " b")]
    encoded, _ = encode(examples, llama, 96)
    (block,) = pack(encoded, 96, llama.pad_token_id)
    start = 0
    for sequence in sorted(encoded, key=lambda s: -len(s.input_ids)):
        end = start + len(sequence.input_ids)
        mine = np.full_like(block.labels, -100)
        mine[start:end] = block.labels[start:end]
        packed = summed_loss(
            input_ids=block.input_ids.tolist(),
            position_ids=block.position_ids.tolist(),
            labels=mine.tolist(),
        )
        alone = summed_loss(input_ids=sequence.input_ids, labels=sequence.labels)
        assert packed == pytest.approx(alone, abs=1e-5, rel=1e-5)
        start = end
    assert start < 96, "the block should end in padding"
