"""Rows and unpacked layers: what is planned fits, and is what is fastest on the GPU."""

import pytest

from trainer.planner.decoding_plan import DecodingNeeds, choose_decoding, fused_rows
from trainer.runtime.device import GIB

# Llama-2-7B in 16 bits: 0.5 MiB a token, 128 tokens a row.
NEEDS = DecodingNeeds(row=64 * 2**20, layer=6476005376 // 32 * 2, layers=32, prompts=2**28)
T4, L4, H200 = (7, 5), (8, 9), (9, 0)


def planned(free_gib: float, capability: tuple[int, int] | None, questions: int = 500) -> object:
    plan = choose_decoding(
        NEEDS,
        questions=questions,
        row_tokens=128,
        free_bytes=int(free_gib * GIB),
        capability=capability,
    )
    taken = plan.rows * NEEDS.row + plan.unpacked_layers * NEEDS.layer + NEEDS.prompts
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


def test_a_cpu_answers_few_together_over_unpacked_weights() -> None:
    assert planned(64, None) == (32, 32)
    assert planned(8, None, questions=3) == (3, 18)


def test_where_products_read_four_bits() -> None:
    assert [fused_rows(capability) for capability in (None, T4, L4, H200)] == [0, 64, 16, 4]
