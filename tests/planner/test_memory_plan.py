"""The memory plan: its keys on disk, and what is predicted is what was measured and is saved."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import pytest
import torch
from support.devices import (
    GEMMA_3_4B,
    LLAMA_2_7B,
    LLAMA_3_70B,
    PHI_4,
    QWEN_3_5_4B,
    QWEN_3_30B_A3B,
    TRAINABLE,
)
from support.small_models import CONFIGS, ROW, documents, packed_batch, tuned_model

from trainer.engine.activations import DecoderActivations
from trainer.engine.decoder import Engine
from trainer.models.base_model import Base
from trainer.planner.gpus import GPUS
from trainer.planner.memory_plan import (
    FULL,
    HALF,
    SLOTS,
    MemoryPlan,
    disk_bytes,
    host_bytes,
    leaner_plan,
    peak_bytes,
    recomputed_layer_bytes,
    stored_layer_bytes,
    tokens_per_s,
)
from trainer.planner.model_shape import ModelShape
from trainer.runtime.device import GIB
from trainer.runtime.nf4 import NF4_BYTES

OFFLOADED = MemoryPlan(0, offload=True, mlp_rows=2048, logit_rows=512, offload_embeddings=True)
LONG = replace(OFFLOADED, keep_attention=True)


@dataclass(frozen=True)
class Small:
    """A small model with an adapter, and its sizes as the planner sees them."""

    family: str
    model: Any
    shape: ModelShape


# -- keys on disk -----------------------------------------------------------------------------

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
    "hosted_layers": 2,
    "on_disk": True,
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
    hosted_layers=2,
    on_disk=True,
)


def test_a_plan_is_written_under_the_keys_of_the_first_releases_and_in_their_order() -> None:
    assert json.dumps(IN_CODE.to_json()) == json.dumps(ON_DISK)


def test_a_plan_of_an_earlier_release_is_read() -> None:
    assert MemoryPlan.from_json(ON_DISK) == IN_CODE
    assert MemoryPlan.from_json({"kept_layers": 2}) == MemoryPlan(2)  # before the other keys


def test_a_plan_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(TypeError, match="dropped_layers"):
        MemoryPlan.from_json(ON_DISK | {"dropped_layers": 1})


# -- what a layer saves, in the engine and in the accounting ----------------------------------

ADAPTED, RANK = "q_proj,v_proj", 4
HYBRID = ("qwen3_5_text",)  # layers of two kinds, for which the larger one is counted
SAVING = {
    "stored": MemoryPlan(3),
    "one stored": MemoryPlan(1),
    "recomputed": MemoryPlan(0, mlp_rows=40, logit_rows=17),
    "attention": MemoryPlan(0, keep_attention=True),
    "both": MemoryPlan(2, keep_attention=True, unpacked_layers=1),
}


@pytest.fixture(scope="module", params=CONFIGS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model of each family whose hidden state, queries, keys and intermediate state are of
    different widths, in 16 bits."""
    folder = tmp_path_factory.mktemp(request.param)
    adapted = "qkv_proj,o_proj" if request.param == "phi3" else ADAPTED
    model = tuned_model(request.param, folder, adapted, precision="fp16", head_dim=48)
    return Small(request.param, model, Base(folder, request.param, "none").shape("fp16"))


@pytest.mark.parametrize("plan", SAVING)
def test_what_the_engine_saves_is_what_is_counted(plan: str, small: Small) -> None:
    """To the byte, layer by layer, with what is left out of the count named and added."""
    batch, chosen = packed_batch(), SAVING[plan]
    where, tokens = documents(batch["position_ids"]), batch["input_ids"].numel()
    engine = Engine(small.model, dtype=torch.float16, plan=chosen, row_tokens=ROW)
    loss = engine.loss_sum(batch["input_ids"], batch["labels"], batch["position_ids"], where)
    saved: DecoderActivations = loss.grad_fn.saved  # what the backward pass will be given
    first_stored = small.shape.layers - chosen.stored_layers
    for number, layer in enumerate(saved.layers):
        if number >= first_stored:
            counted = stored_layer_bytes(small.shape, tokens)
            left_out = left_out_of_stored(small) * tokens
        else:
            counted = recomputed_layer_bytes(small.shape, chosen, tokens)
            left_out = left_out_of_recomputed(small, chosen) * tokens
        least = 0.4 * counted if small.family in HYBRID else counted + left_out
        assert least <= saved_bytes(layer) <= counted + left_out, number
    of_layers = sum(saved_bytes(layer) for layer in saved.layers)
    assert saved_bytes(saved.layers) == of_layers, "layers share what is counted for each"


def left_out_of_stored(small: Small) -> int:
    """Bytes for each token: A x of each adapter, less than a thousandth of a 7B's layer; to which
    experts a token goes; on a CPU, where nothing is counted, attention's output once more."""
    adapters = RANK * len(ADAPTED.split(","))
    routed = (3 * 8 + HALF) * small.shape.experts_of_a_token
    return HALF * (adapters + small.shape.q) + routed


def left_out_of_recomputed(small: Small, plan: MemoryPlan) -> int:
    """The log-sum-exp of attention that is kept, under a hundredth of its output for heads of 128;
    on a CPU its output once more."""
    return FULL * small.shape.heads + HALF * small.shape.q if plan.keep_attention else 0


def saved_bytes(saved: Any) -> int:
    """Of all tensors in `saved`, through dataclasses and containers; each storage once."""
    return sum({s.data_ptr(): s.nbytes() for s in storages(saved)}.values())


def storages(saved: Any) -> Iterator[torch.UntypedStorage]:
    if isinstance(saved, torch.Tensor):
        yield saved.untyped_storage()
    elif is_dataclass(saved):
        yield from storages(vars(saved))
    elif isinstance(saved, dict):
        yield from storages(list(saved.values()))
    elif isinstance(saved, list | tuple):
        for item in saved:
            yield from storages(item)


# -- peaks and rates, as measured -------------------------------------------------------------


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


def test_a_shard_of_the_base_takes_its_share_and_two_layers() -> None:
    def weights(shards: int) -> int:
        return peak_bytes(LLAMA_2_7B, MemoryPlan(32, base_shards=shards), 4, 512, TRAINABLE)

    base = LLAMA_2_7B.linear_parameters * NF4_BYTES
    assert weights(1) - weights(4) == pytest.approx(base * (3 / 4 - 2 / 32), rel=1e-6)


def test_a_layer_in_host_memory_takes_none_of_the_gpu_but_the_slots() -> None:
    def weights(hosted: int) -> int:
        return peak_bytes(LLAMA_2_7B, MemoryPlan(32, hosted_layers=hosted), 4, 512, TRAINABLE)

    layer = LLAMA_2_7B.linear_parameters * NF4_BYTES / 32
    assert weights(0) - weights(12) == pytest.approx(10 * layer, rel=1e-6)
    plan = MemoryPlan(32, hosted_layers=12)
    assert host_bytes(LLAMA_2_7B, plan, 2048) == int(12 * layer)
    assert disk_bytes(LLAMA_2_7B, plan) == 0
    plan = replace(plan, on_disk=True)
    assert host_bytes(LLAMA_2_7B, plan, 2048) == SLOTS * 2**27 > SLOTS * layer
    assert disk_bytes(LLAMA_2_7B, plan) == int(12 * layer)


def test_what_comes_from_the_host_hides_behind_enough_tokens() -> None:
    t4 = GPUS["t4"]
    for blocks, hidden in ((1, False), (16, True)):
        beside, alone = (
            tokens_per_s(LLAMA_2_7B, MemoryPlan(0, hosted_layers=hosted), blocks, 128, t4)
            for hosted in (32, 0)
        )
        assert (beside == alone) is hidden
        assert beside <= alone


@pytest.mark.parametrize(
    ("plan", "blocks", "tokens", "measured"),
    [
        (MemoryPlan(32, graph=True), 1, 512, 13_859),
        (MemoryPlan(32, graph=True), 4, 512, 18_989),
        (MemoryPlan(32, graph=True), 16, 512, 20_285),
        (MemoryPlan(32, unpacked_layers=32, graph=True), 1, 512, 18_006),
        (MemoryPlan(32, unpacked_layers=32, graph=True), 4, 512, 20_677),
        (MemoryPlan(32, unpacked_layers=32, graph=True), 16, 512, 20_915),
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


@pytest.mark.parametrize(
    ("shape", "trainable", "gib", "ours"),
    [
        (QWEN_3_5_4B, 14_954_496, 15.44, 13_013),
        (QWEN_3_30B_A3B, 6_684_672, 23.87, 12_171),
        (GEMMA_3_4B, 14_901_248, 15.16, 27_310),
        (PHI_4, 27_852_800, 43.71, 9_276),
    ],
)
def test_what_was_measured_of_other_families_is_predicted(
    shape: ModelShape, trainable: int, gib: float, ours: float
) -> None:
    """On an H200 in bf16, 4 x 512 tokens, r=8 on all linear layers."""
    layers, h200 = shape.layers, GPUS["h200"]
    plan = MemoryPlan(layers, unpacked_layers=layers, graph=True)
    predicted = tokens_per_s(shape, plan, 4, 512, h200, trainable // 8)
    assert predicted == pytest.approx(ours, rel=0.08)
    assert peak_bytes(shape, plan, 4, 512, trainable) / GIB == pytest.approx(gib, rel=0.05)


QV, ALL = 16_384_000, 207_093_760  # parameters of a 70B's adapter: r=8 on q and v, r=16 on all


@pytest.mark.parametrize(
    ("trainable", "rank", "mlp_rows", "measured_gib", "measured"),
    [
        (QV, 8, 2048, 36.01, 1_415),
        (QV, 8, 8192, 35.89, 1_487),
        (ALL, 16, 2048, 37.19, 1_334),
        (ALL, 16, 8192, 38.06, 1_410),
    ],
)
def test_a_70b_is_predicted_as_measured(
    trainable: int, rank: int, mlp_rows: int, measured_gib: float, measured: float
) -> None:
    """Resident on an H200 in fp16, 16 blocks of 512, by what a T4 has of attention."""
    plan = replace(OFFLOADED, mlp_rows=mlp_rows)
    peak = peak_bytes(LLAMA_3_70B, plan, 16, 512, trainable, summed=False)
    assert peak / GIB == pytest.approx(measured_gib, rel=0.05)
    rate = tokens_per_s(LLAMA_3_70B, plan, 16, 512, GPUS["h200"], trainable // rank)
    assert rate == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", GPUS)
def test_recomputing_is_never_predicted_to_be_faster(name: str) -> None:
    rates = [
        tokens_per_s(LLAMA_2_7B, MemoryPlan(stored), 4, 512, GPUS[name]) for stored in (0, 16, 32)
    ]
    assert rates == sorted(rates)


def test_running_out_of_memory_leads_to_the_leanest_plan_and_then_to_none() -> None:
    plan: MemoryPlan | None = MemoryPlan(32, unpacked_layers=32, graph=True)
    seen = []
    while plan is not None:
        seen.append(peak_bytes(LLAMA_2_7B, plan, 4, 512, TRAINABLE))
        plan = leaner_plan(plan)
    assert seen == sorted(seen, reverse=True)
    assert len(seen) > 3


def test_workers_that_hold_the_base_together_try_nothing_again() -> None:
    """Each gathers a layer when all do: one that went back to the first would be given others."""
    assert leaner_plan(MemoryPlan(32, base_shards=2)) is None
