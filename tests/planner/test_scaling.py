"""What several workers would take, reckoned beforehand; the traffic is also measured, between two
hosts, in test_two_hosts.py."""

from typing import Any

import pytest
from support.devices import LLAMA_2_7B, TRAINABLE

from trainer.planner.choose import Execution
from trainer.planner.memory_plan import MemoryPlan
from trainer.planner.scaling import ScalingEstimate


def estimate(workers: int, **changes: Any) -> ScalingEstimate:
    """1,000 tokens/s each, in micro-batches of 2 blocks of 500 tokens; a step of 16 blocks."""
    asked: dict[str, Any] = {
        "execution": Execution(2, MemoryPlan(32), "", tokens_per_s=1000.0),
        "step_blocks": 16,
        "block_tokens": 500,
        "trainable": TRAINABLE,
        "linear_parameters": LLAMA_2_7B.linear_parameters,
        "parameters": LLAMA_2_7B.parameters,
    }
    return ScalingEstimate(workers=workers, **(asked | changes))


@pytest.mark.parametrize(
    ("workers", "micro_batches", "tokens_per_s"),
    [(1, 8, 1000), (4, 2, 4000), (8, 1, 8000), (3, 3, 8000 / 3)],
)
def test_all_wait_for_the_worker_with_most_micro_batches(
    workers: int, micro_batches: int, tokens_per_s: float
) -> None:
    asked = estimate(workers)
    assert (asked.micro_batches, asked.tokens_per_s) == (micro_batches, pytest.approx(tokens_per_s))
    assert asked.hours(3_600_000) == pytest.approx(1000 / tokens_per_s)


def test_a_ring_sends_a_gradient_of_float64_once_for_two_workers_and_nearly_twice_for_many() -> (
    None
):
    assert estimate(1).gradient_bytes == 0
    assert estimate(2).gradient_bytes == TRAINABLE * 8
    assert estimate(16).gradient_bytes == TRAINABLE * 8 * 2 * 15 / 16


def test_a_base_in_parts_travels_twice_in_each_micro_batch() -> None:
    choice = Execution(2, MemoryPlan(32, base_shards=4), "", tokens_per_s=1000.0)
    once = 3 / 4 * LLAMA_2_7B.linear_parameters * (0.5 + 1 / 64 + 4 / (64 * 256))
    assert estimate(4, execution=choice).gather_bytes == pytest.approx(2 * 2 * once)
    assert estimate(4).gather_bytes == 0


def test_the_network_named_takes_the_share_named() -> None:
    asked = estimate(4)
    step_s = 16 * 500 / asked.tokens_per_s
    bits_per_s = asked.gbit_per_s(0.1) * 1e9
    assert asked.gradient_bytes * 8 / bits_per_s == pytest.approx(0.1 * step_s)
