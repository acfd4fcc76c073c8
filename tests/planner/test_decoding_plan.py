"""Rows and unpacked layers: what is planned fits, and is what is fastest on the GPU."""

from dataclasses import replace

import pytest
from support import devices

from trainer.planner.decoding_plan import (
    DecodingNeeds,
    DecodingPlan,
    answered_tokens_per_s,
    choose_decoding,
    fused_rows,
    hosted_to_answer,
)
from trainer.planner.gpus import GPUS
from trainer.planner.model_shape import ModelShape
from trainer.runtime.device import GIB

# Llama-2-7B in 16 bits: 0.5 MiB a token, 128 tokens a row.
NEEDS = DecodingNeeds(row=64 * 2**20, layer=6476005376 // 32 * 2, layers=32, prompts=2**28)
T4, L4, H200 = (7, 5), (8, 9), (9, 0)


def planned(
    free_gib: float,
    capability: tuple[int, int] | None,
    questions: int = 500,
    row_tokens: int = 128,
) -> tuple[int, int]:
    plan = choose_decoding(
        replace(NEEDS, row=NEEDS.row * row_tokens // 128),
        questions=questions,
        row_tokens=row_tokens,
        free_bytes=int(free_gib * GIB),
        capability=capability,
    )
    taken = (
        plan.rows * NEEDS.row * row_tokens // 128
        + plan.unpacked_layers * NEEDS.layer
        + NEEDS.prompts
    )
    assert plan.rows == 1 or taken < free_gib * GIB
    return plan.rows, plan.unpacked_layers


@pytest.mark.parametrize(
    ("free_gib", "capability", "questions", "expected"),
    [
        (130, H200, 500, (256, 32)),  # all there is room for
        (130, H200, 1, (1, 32)),
        (20, H200, 128, (128, 27)),  # rows first: they take half of it
        (10.3, T4, 500, (64, 0)),  # as many as its fused product serves
        (4, T4, 500, (27, 0)),
        (17, L4, 4, (4, 0)),  # little bandwidth: NF4 is read faster as it is
        (14, L4, 40, (40, 26)),
        (0.1, T4, 5, (1, 0)),  # tried, whatever is free
    ],
)
def test_a_plan_fits_and_spends_the_rest_on_speed(
    free_gib: float, capability: tuple[int, int], questions: int, expected: tuple[int, int]
) -> None:
    assert planned(free_gib, capability, questions) == expected


def test_layers_from_host_memory_come_once_for_all_rows_there_is_room_for() -> None:
    free = {"row_tokens": 128, "free_bytes": 40 * GIB, "capability": T4, "resident": False}
    assert choose_decoding(NEEDS, questions=500, **free) == DecodingPlan(256, 0, 64)
    assert choose_decoding(NEEDS, questions=3, **free) == DecodingPlan(3, 0, 64)


def test_a_cpu_answers_few_together_over_unpacked_weights() -> None:
    assert planned(64, None) == (32, 32)
    assert planned(8, None, questions=3) == (3, 18)


@pytest.mark.parametrize(("free_gib", "expected"), [(64, 8), (12, 2), (1, 1)])
def test_a_cpu_answers_a_few_long_ones_together_where_memory_holds_them(
    free_gib: float, expected: int
) -> None:
    """4,096 tokens are 2 GiB a row; half of what is free is for rows."""
    rows, _ = planned(free_gib, None, row_tokens=4096)
    assert rows == expected


def test_where_products_read_four_bits() -> None:
    assert [fused_rows(capability) for capability in (None, T4, L4, H200)] == [0, 64, 16, 4]


LLAMA_2_7B = ModelShape(
    layers=32, hidden=4096, intermediate=11008, vocabulary=32000, heads=32, q=4096, kv=4096,
    largest_matrix=4096 * 11008, linear_parameters=6476005376,
    embedding_parameters=2 * 32000 * 4096, other_parameters=262410240,
)  # fmt: skip


def test_the_sizes_of_a_model_say_what_answering_takes() -> None:
    """Keys and values of Llama-2-7B are 0.5 MiB a token in 16 bits."""
    needs = DecodingNeeds.of(
        layers=32, hidden=4096, intermediate=11008, vocabulary=32000, kv=4096,
        layer_parameters=6476005376 // 32, row_tokens=128, value_bytes=2,
    )  # fmt: skip
    assert (needs.row, needs.layer, needs.layers) == (NEEDS.row, NEEDS.layer, 32)
    assert 0.3 * GIB < needs.prompts < 0.5 * GIB


@pytest.mark.parametrize(
    ("gpu", "plan", "expected"),
    [
        # 3.7 GB at 250 GB/s; with 64 rows 0.84 TFLOP at 22 TFLOP/s take longer than 7.2 GB.
        ("t4", DecodingPlan(1, 0, 64), 65),
        ("t4", DecodingPlan(64, 0, 64), 1630),
        ("h200", DecodingPlan(1, 32, 4), 168),
        ("h200", DecodingPlan(64, 32, 4), 8772),
    ],
)
def test_speed_is_what_a_step_reads_or_computes(
    gpu: str, plan: DecodingPlan, expected: float
) -> None:
    found = answered_tokens_per_s(LLAMA_2_7B, plan, 96, GPUS[gpu])
    assert found == pytest.approx(expected, rel=0.01)


def test_what_has_to_be_unpacked_in_each_step_is_slow() -> None:
    rates = [
        answered_tokens_per_s(LLAMA_2_7B, DecodingPlan(64, unpacked, fused), 96, GPUS["l4"])
        for unpacked, fused in [(0, 16), (16, 16), (32, 16), (0, 64)]
    ]
    assert sorted(rates) == rates


def test_a_base_that_does_not_fit_answers_with_layers_in_host_memory() -> None:
    t4 = devices.T4
    large = replace(LLAMA_2_7B, layers=192, linear_parameters=6 * LLAMA_2_7B.linear_parameters)
    assert hosted_to_answer(LLAMA_2_7B, t4) == 0
    assert hosted_to_answer(large, devices.A10) == 0 < hosted_to_answer(large, t4) < 192
    assert hosted_to_answer(large, replace(t4, free_bytes=GIB)) == 192
