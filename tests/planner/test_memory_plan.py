"""The memory plan: its keys on disk, and what is predicted is what was measured and is saved."""

import json
from dataclasses import replace

import pytest
from support.devices import LLAMA_2_7B, TRAINABLE

from trainer.planner.gpus import GPUS
from trainer.planner.memory_plan import MemoryPlan, peak_bytes, stock_peak_bytes, tokens_per_s
from trainer.runtime.device import GIB
from trainer.runtime.nf4 import NF4_BYTES

OFFLOADED = MemoryPlan(0, offload=True, mlp_rows=2048, logit_rows=512, offload_embeddings=True)
LONG = replace(OFFLOADED, keep_attention=True)

ON_DISK = {  # as checkpoints and run.json of the first releases hold a plan
    "kept_layers": 3,
    "keep_attention": True,
    "offload": True,
    "mlp_rows": 40,
    "logit_rows": 17,
    "host_ends": True,
    "unpacked_layers": 2,
    "graph": True,
    "parts": 4,
}
IN_CODE = MemoryPlan(
    stored_layers=3,
    keep_attention=True,
    offload=True,
    mlp_rows=40,
    logit_rows=17,
    offload_embeddings=True,
    unpacked_layers=2,
    graph=True,
    base_shards=4,
)


def test_a_plan_is_written_under_the_keys_of_the_first_releases_and_in_their_order() -> None:
    assert json.dumps(IN_CODE.to_json()) == json.dumps(ON_DISK)


def test_a_plan_of_an_earlier_release_is_read() -> None:
    assert MemoryPlan.from_json(ON_DISK) == IN_CODE
    assert MemoryPlan.from_json({"kept_layers": 2}) == MemoryPlan(2)  # before the other keys


def test_a_plan_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(TypeError, match="dropped_layers"):
        MemoryPlan.from_json(ON_DISK | {"dropped_layers": 1})


@pytest.mark.parametrize(
    ("plan", "blocks", "tokens", "measured_gib"),
    [
        (MemoryPlan(32), 1, 512, 5.331),
        (MemoryPlan(32), 4, 512, 9.732),
        (MemoryPlan(32), 16, 512, 27.042),
        (MemoryPlan(32, unpacked_layers=32), 1, 512, 17.24),
        (MemoryPlan(32, unpacked_layers=32), 4, 512, 21.73),
        (MemoryPlan(32, unpacked_layers=32), 16, 512, 39.01),
        (MemoryPlan(16), 4, 512, 7.133),
        (MemoryPlan(10), 16, 512, 12.750),
        (MemoryPlan(0), 16, 512, 6.811),
        (OFFLOADED, 1, 512, 3.57),
        (OFFLOADED, 4, 512, 3.62),
        (OFFLOADED, 16, 512, 4.18),
        (LONG, 1, 8192, 4.26),
        (LONG, 1, 32768, 7.18),
    ],
)
def test_the_predicted_peak_is_within_5_percent_of_the_measured_one(
    plan: MemoryPlan, blocks: int, tokens: int, measured_gib: float
) -> None:
    """Measured on an H200 in fp16: the most that torch had allocated in a step."""
    predicted = peak_bytes(LLAMA_2_7B, plan, blocks, tokens, TRAINABLE)
    assert predicted / GIB == pytest.approx(measured_gib, rel=0.05)


@pytest.mark.parametrize(("blocks", "measured_gib"), [(1, 4.01), (4, 4.95), (16, 8.74)])
def test_the_stock_estimate_is_near_what_a_gpu_measured(blocks: int, measured_gib: float) -> None:
    estimate = stock_peak_bytes(LLAMA_2_7B, trainable=TRAINABLE, tokens=blocks * 512)
    assert estimate / GIB == pytest.approx(measured_gib, rel=0.08)


def test_a_shard_of_the_base_takes_its_share_and_two_layers() -> None:
    def weights(shards: int) -> int:
        return peak_bytes(LLAMA_2_7B, MemoryPlan(32, base_shards=shards), 4, 512, TRAINABLE)

    base = LLAMA_2_7B.linear_parameters * NF4_BYTES
    assert weights(1) - weights(4) == pytest.approx(base * (3 / 4 - 2 / 32), rel=1e-6)


@pytest.mark.parametrize(
    ("plan", "blocks", "tokens", "measured"),
    [
        (MemoryPlan(32), 1, 512, 13_859),
        (MemoryPlan(32), 4, 512, 18_989),
        (MemoryPlan(32), 16, 512, 20_285),
        (MemoryPlan(32, unpacked_layers=32), 1, 512, 18_006),
        (MemoryPlan(32, unpacked_layers=32), 4, 512, 20_677),
        (MemoryPlan(32, unpacked_layers=32), 16, 512, 20_915),
        (OFFLOADED, 4, 512, 13_312),
        (OFFLOADED, 16, 512, 13_903),
        (LONG, 1, 8192, 11_717),
        (LONG, 1, 32768, 7_985),
    ],
)
def test_the_predicted_speed_is_within_15_percent_of_the_measured_one(
    plan: MemoryPlan, blocks: int, tokens: int, measured: float
) -> None:
    """Measured on an H200 in fp16, the optimizer step included."""
    predicted = tokens_per_s(LLAMA_2_7B, plan, blocks, tokens, GPUS["h200"])
    assert predicted == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", GPUS)
def test_recomputing_is_never_predicted_to_be_faster(name: str) -> None:
    rates = [
        tokens_per_s(LLAMA_2_7B, MemoryPlan(stored), 4, 512, GPUS[name]) for stored in (0, 16, 32)
    ]
    assert rates == sorted(rates)
