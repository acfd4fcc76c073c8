"""The fastest execution that is predicted to fit is taken, and taken again on resume."""

from dataclasses import replace

import pytest
from support.devices import A10, CPU, H200, LLAMA_2_7B, LLAMA_3_70B, T4, chosen, workload

from trainer.errors import DoesNotFitError
from trainer.planner.choose import Execution, choose, choose_for
from trainer.planner.memory_plan import HALF, SLOTS, MemoryPlan, fragment_bytes, peak_bytes
from trainer.planner.model_shape import ModelShape
from trainer.runtime.device import GIB, Device


@pytest.mark.parametrize("device", [T4, A10, H200], ids=lambda d: d.name)
def test_the_choice_fits_and_no_other_is_faster(device: Device) -> None:
    best = chosen(device)
    assert best.peak_bytes < device.free_bytes
    assert 16 % best.blocks == 0
    slower = [chosen(device, micro_batch=b) for b in (1, 2, 4, 8, 16)]
    assert best.tokens_per_s == max(c.tokens_per_s for c in slower)


def test_a_t4_keeps_every_activation_of_four_blocks() -> None:
    choice = chosen(T4)
    assert (choice.blocks, choice.plan.stored_layers) == (4, 32)
    assert "no layer computed again" in choice.reason


def test_memory_that_is_left_holds_unpacked_weights_but_never_all_of_it() -> None:
    choice = chosen(T4)
    assert 0 < choice.plan.unpacked_layers < 32
    assert choice.peak_bytes < 0.93 * T4.free_bytes
    assert chosen(H200).plan == MemoryPlan(32, unpacked_layers=32, graph=True)
    assert chosen(replace(T4, free_bytes=10 * GIB), micro_batch=4).plan.unpacked_layers == 0


def test_a_mixture_is_captured_where_the_cpu_need_not_count_its_rows() -> None:
    """Then all experts of a layer are dequantised at once, which is counted, and it is faster."""
    mixture = replace(LLAMA_2_7B, expert_parameters=10**10, active_parameters=10**9)
    waits, captured = (
        chosen(H200, shape=mixture, unasked=unasked, micro_batch=4) for unasked in (False, True)
    )
    assert (waits.plan.graph, captured.plan.graph) == (False, True)
    at_once = 2 * 10**10 // (3 * LLAMA_2_7B.layers) * HALF
    assert captured.peak_bytes - waits.peak_bytes > at_once / 2
    assert captured.tokens_per_s > 1.5 * waits.tokens_per_s


def test_cuda_graphs_are_used_where_their_own_memory_fits_too() -> None:
    tight = replace(H200, free_bytes=int(10.5 * GIB))
    assert chosen(tight, micro_batch=4).plan == MemoryPlan(32)
    assert chosen(replace(tight, free_bytes=12 * GIB), micro_batch=4).plan.graph


def test_less_memory_is_more_recomputed_and_then_moved_to_the_host() -> None:
    def plan(gib: float) -> MemoryPlan:
        return chosen(replace(T4, free_bytes=int(gib * GIB)), micro_batch=8).plan

    assert 0 < plan(14.7).stored_layers < 32
    assert plan(5.5).stored_layers < plan(8).stored_layers
    assert plan(4.2).offload


def test_a_block_of_65536_tokens_trains_on_a_t4() -> None:
    choice = chosen(T4, block_tokens=65536, step_blocks=1, host_bytes=40 * GIB)
    assert choice.plan.offload and choice.plan.keep_attention


def test_host_memory_that_is_not_there_is_not_used() -> None:
    with pytest.raises(DoesNotFitError, match=r"14\.7 GiB free.*needs about"):
        chosen(T4, block_tokens=65536, step_blocks=1, host_bytes=GIB)


def test_the_base_is_in_parts_only_where_it_does_not_fit_whole() -> None:
    def plan(sharding: str, workers: int, gib: float) -> MemoryPlan:
        device = replace(T4, free_bytes=int(gib * GIB))
        choice = choose_for(workers, sharding, workload(device, step_blocks=8, host_bytes=0))
        assert choice.plan is not None
        return choice.plan

    assert plan("auto", 4, 14.7).base_shards == 1
    assert plan("auto", 4, 3.5).base_shards == 4
    assert plan("fsdp", 4, 14.7).base_shards == 4
    assert plan("fsdp", 1, 14.7).base_shards == 1
    for sharding, workers in (("ddp", 4), ("auto", 1)):
        with pytest.raises(DoesNotFitError, match=r"3\.5 GiB free"):
            plan(sharding, workers, 3.5)
    with pytest.raises(DoesNotFitError, match=r"the base in 2 parts; lower QLORA_MAX_LENGTH"):
        plan("auto", 2, 1.5)


def test_a_model_that_does_not_fit_is_refused_with_the_size_it_needs() -> None:
    small = Device("cuda", "small", (7, 5), 3 * GIB)
    with pytest.raises(DoesNotFitError, match=r"3\.0 GiB free.*needs about 4\.\d GiB; with"):
        chosen(small, host_bytes=0)
    tiny = replace(small, free_bytes=GIB // 4)
    with pytest.raises(DoesNotFitError, match=r"0\.2 GiB free.*; lower QLORA_MAX_LENGTH or use"):
        chosen(tiny, host_bytes=64 * GIB)


def test_of_a_base_larger_than_the_gpu_as_much_as_has_to_lies_in_host_memory() -> None:
    seventy = {"shape": LLAMA_3_70B, "host_bytes": 60 * GIB}
    choice = chosen(T4, **seventy)
    assert SLOTS < choice.plan.hosted_layers <= 80
    assert choice.peak_bytes * 1.03 <= T4.free_bytes
    assert not (choice.plan.graph or choice.plan.unpacked_layers)
    assert "layers of the base in host memory" in choice.reason
    larger = chosen(replace(T4, free_bytes=22 * GIB), micro_batch=choice.blocks, **seventy)
    assert larger.plan.hosted_layers < choice.plan.hosted_layers
    assert chosen(T4).plan.hosted_layers == 0


QWEN_2_5_32B = ModelShape(
    layers=64,
    hidden=5120,
    intermediate=27648,
    vocabulary=152064,
    heads=40,
    q=5120,
    kv=1024,
    largest_matrix=27648 * 5120,
    linear_parameters=31_205_621_760,
    embedding_parameters=1_557_135_360,
    other_parameters=1_558_254_592,
)
QWEN_3_14B = ModelShape(
    layers=40,
    hidden=5120,
    intermediate=17408,
    vocabulary=151936,
    heads=40,
    q=5120,
    kv=1024,
    largest_matrix=17408 * 5120,
    linear_parameters=13_212_057_600,
    embedding_parameters=1_555_824_640,
    other_parameters=1_556_249_600,
    normed_heads=1,
)
RUNNING, FAILING = True, False
OFFLOADED = MemoryPlan(
    0, offload=True, mlp_rows=8192, logit_rows=512, offload_embeddings=True, hosted_layers=63
)


@pytest.mark.parametrize(
    ("shape", "trainable", "blocks", "plan", "cap_gib", "ran"),
    [
        (QWEN_2_5_32B, 134_217_728, 16, MemoryPlan(3, hosted_layers=63), 14.56, FAILING),
        (QWEN_2_5_32B, 134_217_728, 16, MemoryPlan(3, hosted_layers=63), 14.7, FAILING),
        (QWEN_2_5_32B, 134_217_728, 16, MemoryPlan(3, hosted_layers=63), 14.76, RUNNING),
        (QWEN_2_5_32B, 134_217_728, 16, MemoryPlan(2, hosted_layers=61), 14.7, RUNNING),
        (QWEN_2_5_32B, 134_217_728, 16, MemoryPlan(1, hosted_layers=63), 14.7, RUNNING),
        (QWEN_2_5_32B, 8_388_608, 16, MemoryPlan(4, hosted_layers=64), 14.7, RUNNING),
        (LLAMA_3_70B, 207_093_760, 16, OFFLOADED, 14.7, RUNNING),
        (QWEN_3_14B, 64_225_280, 4, MemoryPlan(37, hosted_layers=40), 14.17, RUNNING),
        (QWEN_3_14B, 5_242_880, 4, MemoryPlan(38, hosted_layers=37), 14.7, RUNNING),
        (QWEN_3_14B, 5_242_880, 16, MemoryPlan(1), 14.7, FAILING),
        (QWEN_3_14B, 5_242_880, 16, MemoryPlan(0), 14.7, FAILING),
    ],
)
def test_what_ran_under_a_cap_is_predicted_to_and_what_did_not_is_not(
    shape: ModelShape, trainable: int, blocks: int, plan: MemoryPlan, cap_gib: float, ran: bool
) -> None:
    """On an H200, blocks of 512 tokens, a cap on what torch's allocator takes: bench/hosted.py."""
    peak = peak_bytes(shape, plan, blocks, 512, trainable, summed=blocks < 16)
    assert (peak + fragment_bytes(shape, plan, blocks * 512) <= cap_gib * GIB) is ran


def test_layers_lie_in_host_memory_too_where_that_is_a_tenth_faster() -> None:
    small = replace(T4, free_bytes=5 * GIB)
    choice, resident = chosen(small), chosen(small, hosted_layers=0)
    assert choice.plan.hosted_layers > 0 == resident.plan.hosted_layers
    assert choice.tokens_per_s > 1.1 * resident.tokens_per_s
    slow = chosen(small, bus_bytes_per_s=10**9)
    assert slow == chosen(small, bus_bytes_per_s=10**9, hosted_layers=0)


def test_where_host_memory_is_short_too_they_lie_on_disk_at_its_speed() -> None:
    short = {"shape": LLAMA_3_70B, "host_bytes": 8 * GIB}
    choice = chosen(T4, disk_bytes=60 * GIB, **short)
    assert choice.plan.on_disk and f"{choice.plan.hosted_layers} layers of the base on disk" in (
        choice.reason
    )
    faster = chosen(T4, disk_bytes=60 * GIB, disk_bytes_per_s=4 * 10**9, **short)
    assert choice.tokens_per_s < faster.tokens_per_s
    roomy = short | {"host_bytes": 60 * GIB}
    assert chosen(T4, disk_bytes=60 * GIB, **roomy) == chosen(T4, **roomy)
    with pytest.raises(DoesNotFitError, match=r"the disk has 4\.0 for them"):
        chosen(T4, disk_bytes=4 * GIB, **short)


def test_host_memory_that_is_too_small_for_the_base_is_named_with_what_it_takes() -> None:
    with pytest.raises(DoesNotFitError, match=r"they take 2\d\.\d GiB, 8\.0 may be pinned"):
        chosen(T4, shape=LLAMA_3_70B)


def test_workers_share_the_base_before_each_has_layers_of_it_in_host_memory() -> None:
    def plan(sharding: str, gib: int) -> MemoryPlan:
        asked = workload(replace(T4, free_bytes=gib * GIB), shape=LLAMA_3_70B)
        choice = choose_for(4, sharding, replace(asked, host_bytes=200 * GIB))
        assert choice.plan is not None
        return choice.plan

    assert (plan("auto", 22).base_shards, plan("auto", 22).hosted_layers) == (4, 0)
    assert plan("auto", 8).base_shards == plan("ddp", 22).base_shards == 1
    assert plan("auto", 8).hosted_layers and plan("ddp", 22).hosted_layers


def test_where_the_weights_alone_do_not_fit_shorter_blocks_are_no_advice() -> None:
    with_experts = replace(LLAMA_2_7B, expert_parameters=3 * 10**10)
    t4 = Device("cuda", "Tesla T4", (7, 5), 14 * GIB)
    with pytest.raises(DoesNotFitError, match=r"alone take 18\.\d; use a smaller model$"):
        choose(workload(t4, shape=with_experts, engine=False))


def test_a_micro_batch_that_was_set_is_used() -> None:
    assert chosen(T4, micro_batch=2).blocks == 2
    assert chosen(CPU, micro_batch=2).blocks == 2


def test_the_optimizer_step_is_always_whole_micro_batches() -> None:
    for step_blocks in (1, 3, 5, 7, 12, 16):
        for device in (CPU, T4):
            assert step_blocks % chosen(device, step_blocks=step_blocks).blocks == 0


def test_an_execution_is_recorded_under_the_keys_of_the_first_releases() -> None:
    execution = Execution(2, MemoryPlan(1), "as set", peak_bytes=3, tokens_per_s=4.0)
    recorded = execution.to_json()
    assert list(recorded) == ["blocks", "plan", "reason", "peak_bytes", "tokens_per_s"]
    assert list(recorded.values()) == [2, MemoryPlan(1).to_json(), "as set", 3, 4.0]
    assert replace(execution, plan=None).to_json()["plan"] is None
