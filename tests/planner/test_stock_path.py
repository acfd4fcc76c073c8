"""The stock path's memory and speed are predicted as counted and as measured."""

from dataclasses import replace

import pytest
from support.devices import (
    GEMMA_3_4B,
    GPT_OSS_20B,
    LLAMA_2_7B,
    PHI_4,
    QWEN_3_5_4B,
    QWEN_3_30B_A3B,
    TRAINABLE,
)

from trainer.planner.gpus import GPUS
from trainer.planner.memory_plan import FULL
from trainer.planner.model_shape import ModelShape
from trainer.planner.stock_path import stock_peak_bytes, stock_tokens_per_s
from trainer.runtime.device import GIB

ADAPTERS = {  # parameters with r=8 on all linear layers
    GPT_OSS_20B: 3_981_312,
    QWEN_3_30B_A3B: 6_684_672,
    GEMMA_3_4B: 14_901_248,
    PHI_4: 27_852_800,
    QWEN_3_5_4B: 14_954_496,
}


@pytest.mark.parametrize(
    ("shape", "blocks", "counted_gib"),
    [
        (GPT_OSS_20B, 1, 12.32),
        (GPT_OSS_20B, 2, 12.64),
        (GPT_OSS_20B, 4, 13.27),
        (QWEN_3_30B_A3B, 1, 16.12),
        (QWEN_3_30B_A3B, 4, 16.71),
        (GEMMA_3_4B, 4, 3.85),
        (PHI_4, 4, 10.36),
        (QWEN_3_5_4B, 1, 3.50),
    ],
)
def test_the_peak_is_what_lives_at_once(shape: ModelShape, blocks: int, counted_gib: float) -> None:
    """Counted with fake tensors at real sizes, blocks of 512 tokens, trl's loss."""
    sizes = {"trainable": ADAPTERS[shape], "tokens": 512 * blocks, "block_tokens": 512}
    assert stock_peak_bytes(shape, **sizes) / GIB == pytest.approx(counted_gib, rel=0.05)


def test_gpt_oss_takes_of_a_t4_what_was_measured() -> None:
    """4 x 512 tokens in fp16, held to 14.7 GiB on an H200: bench/families.py."""
    sizes = {"trainable": ADAPTERS[GPT_OSS_20B], "tokens": 2048, "block_tokens": 512}
    assert stock_peak_bytes(GPT_OSS_20B, **sizes) / GIB == pytest.approx(12.98, rel=0.05)


def test_words_that_are_never_whole_take_nothing() -> None:
    sizes = {"trainable": TRAINABLE, "tokens": 8192, "block_tokens": 512}
    words = [
        stock_peak_bytes(replace(LLAMA_2_7B, vocabulary=vocabulary), **sizes)
        for vocabulary in (32_768, 262_144)
    ]
    assert words[0] == words[1]


def test_scores_of_all_pairs_grow_with_the_block() -> None:
    """Where transformers' own attention is computed, as of gpt-oss with its sinks."""

    def peak(shape: ModelShape, block_tokens: int) -> int:
        return stock_peak_bytes(shape, trainable=TRAINABLE, tokens=4096, block_tokens=block_tokens)

    longer = peak(GPT_OSS_20B, 4096) - peak(GPT_OSS_20B, 512)
    assert longer > FULL * GPT_OSS_20B.heads * 4096 * (4096 - 512)
    fused = replace(GPT_OSS_20B, whole_scores=False)
    assert peak(fused, 4096) == peak(fused, 512) < peak(GPT_OSS_20B, 512)


@pytest.mark.parametrize(
    ("shape", "measured"),
    [(QWEN_3_5_4B, 1_411), (QWEN_3_30B_A3B, 1_480), (GEMMA_3_4B, 2_464), (PHI_4, 3_809)],
)
def test_the_speed_is_near_what_was_measured(shape: ModelShape, measured: float) -> None:
    """On an H200 in bf16, 4 x 512 tokens, r=8 on all linear layers."""
    assert stock_tokens_per_s(shape, 4, 512, GPUS["h200"]) == pytest.approx(measured, rel=0.2)
