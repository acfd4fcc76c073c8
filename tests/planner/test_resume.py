"""A run goes on as it began where that fits what is free now."""

from dataclasses import replace
from typing import Any

import pytest
from support.devices import A10, CPU, H200, LLAMA_3_70B, T4, chosen, workload

from trainer.planner.choose import Execution, choose
from trainer.planner.memory_plan import MemoryPlan
from trainer.planner.resume import once_loaded, replan_on_resume
from trainer.runtime.device import GIB, Device

OFFLOADED = MemoryPlan(0, offload=True, mlp_rows=2048, logit_rows=512, offload_embeddings=True)


def test_a_base_that_is_loaded_stays_where_it_lies() -> None:
    begun = chosen(T4, shape=LLAMA_3_70B, host_bytes=60 * GIB)
    whole = once_loaded(workload(H200, shape=LLAMA_3_70B), Execution(1, MemoryPlan(80), ""))
    plan = replace(begun.plan, hosted_layers=0)
    assert replan_on_resume(begun, whole) == replace(begun, plan=plan)
    hosting = once_loaded(workload(A10, shape=LLAMA_3_70B, host_bytes=60 * GIB), begun)
    again = replan_on_resume(replace(begun, plan=plan), hosting)
    assert again.plan is not None and again.plan.hosted_layers == begun.plan.hosted_layers


def gone_on(begun: Execution, device: Device, **changes: Any) -> Execution:
    return replan_on_resume(begun, workload(device, **changes))


@pytest.mark.parametrize("gib", [6, 10, 14.7, 24, 40, 80, 139])
@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_a_run_goes_on_as_it_began_where_as_much_or_more_is_free(
    gib: float, capability: tuple[int, int]
) -> None:
    device = Device("cuda", "a GPU", capability, int(gib * GIB))
    begun = chosen(device)
    for more in (0,) if begun.plan.hosted_layers else (0, 1, 20):
        larger = workload(replace(device, free_bytes=device.free_bytes + more * GIB))
        assert replan_on_resume(begun, once_loaded(larger, choose(larger))) == begun


def test_where_less_is_free_it_goes_on_with_the_micro_batch_at_least() -> None:
    begun = chosen(H200)
    less = gone_on(begun, replace(H200, free_bytes=20 * GIB))
    assert less.blocks == begun.blocks
    assert less.plan != begun.plan
    assert less.peak_bytes <= 20 * GIB


@pytest.mark.parametrize(
    ("begun", "device", "changes"),
    [
        (Execution(16, MemoryPlan(32), ""), T4, {}),
        (Execution(1, MemoryPlan(32, graph=True), ""), T4, {}),
        (Execution(1, MemoryPlan(32, graph=True), ""), CPU, {}),
        (Execution(16, MemoryPlan(32), ""), H200, {"step_blocks": 8}),
        (Execution(1, OFFLOADED, ""), H200, {"host_bytes": 0}),
        (Execution(1, MemoryPlan(32, graph=True), ""), H200, {"base_shards": 2}),
        (Execution(1, None, ""), H200, {}),
        (Execution(1, MemoryPlan(32), ""), H200, {"engine": False}),
    ],
    ids=[
        "memory",
        "no graphs",
        "a CPU",
        "workers",
        "host memory",
        "shards",
        "engine",
        "no engine",
    ],
)
def test_what_is_not_possible_any_more_is_chosen_anew(
    begun: Execution, device: Device, changes: dict[str, Any]
) -> None:
    assert not gone_on(begun, device, **changes).is_as(begun)
