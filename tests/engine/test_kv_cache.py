"""The cache holds each token of a prompt at its place, and a row can move to another's."""

from pathlib import Path

import pytest
import torch
from support.small_models import tuned_model

from trainer.engine.kv_cache import CachingAttention, KeyValueCache, Prompts
from trainer.engine.weights import DecoderWeights
from trainer.kernels import PLAIN
from trainer.kernels.attention import Cpu, Documents

ROWS, LENGTH, HEADS, SIZE = 3, 8, 2, 32


@pytest.fixture
def cache(tmp_path: Path) -> KeyValueCache:
    weights = DecoderWeights.of(tuned_model("qwen3", tmp_path, "q_proj"))
    return KeyValueCache(weights, ROWS, LENGTH, torch.float32, torch.device("cpu"))


def test_a_prompt_is_kept_where_it_belongs_and_attended_to_as_ever(cache: KeyValueCache) -> None:
    sizes = [3, 5]
    q, k, v = (torch.randn(sum(sizes), heads, SIZE) for heads in (4, HEADS, HEADS))
    starts = torch.tensor([0, 3, 8], dtype=torch.int32)
    places = torch.tensor([16, 17, 18, 0, 1, 2, 3, 4])  # the first one in the third row
    keys, values = cache.layer(1)
    attention = CachingAttention(keys, values, PLAIN, Cpu())
    found = attention.forward(q, k, v, Prompts(starts, 5, places))
    assert torch.equal(found.out_MHD, Cpu().forward(q, k, v, Documents(starts, 5)).out_MHD)
    for kept, given in ((keys, k), (values, v)):
        assert kept.shape == (ROWS, LENGTH, HEADS, SIZE)
        assert torch.equal(kept[2, :3], given[:3]) and torch.equal(kept[0, :5], given[3:])
        assert not kept[1].any() and not kept[0, 5:].any()
    assert not cache.layer(0)[0].any()


def test_a_row_moves_with_its_keys_and_values_of_all_layers(cache: KeyValueCache) -> None:
    for number in range(3):
        for tensor in cache.layer(number):
            tensor.copy_(torch.randn(tensor.shape))
    before = [tensor.clone() for number in range(3) for tensor in cache.layer(number)]
    cache.move(2, 0, 3)
    after = [tensor for number in range(3) for tensor in cache.layer(number)]
    for old, new in zip(before, after, strict=True):
        moved = torch.cat([old[2, :3], old[0, 3:]])
        assert torch.equal(new, torch.stack([moved, old[1], old[2]]))
