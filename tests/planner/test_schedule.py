"""How long and how fast a run trains, where its settings leave it open."""

import math

import pytest

from trainer.planner.schedule import ENOUGH_STEPS, Schedule, choose_schedule
from trainer.settings import Settings

SMOLLM2, LLAMA_2_7B = 576, 4096


def schedule(blocks: int, records: int = 100, hidden: int = SMOLLM2, **given: str) -> Schedule:
    variables = {f"QLORA_{name}": value for name, value in given.items()}
    settings = Settings.read({}, variables, trains=False)
    return choose_schedule(settings, blocks=blocks, records=records, hidden=hidden)


@pytest.mark.parametrize(
    ("blocks", "epochs", "step_blocks", "rate"),
    [
        (2, 60, 1, 2.9e-3),  # 10 records
        (7, 60, 1, 2.9e-3),  # 60 records
        (28, 45.4, 2, 3.8e-3),  # 240 records: 12 products with five facts in four wordings
        (130, 21, 8, 6.6e-3),  # 1,200 records: 17 steps a pass, the last one of two blocks
        (138, 20.4, 8, 6.6e-3),  # 1,200 records: 60 products
        (2939, 4.4, 16, 6.6e-3),  # gsm8k
        (100_000, 3, 16, 6.6e-3),
    ],
)
def test_small_data_is_passed_over_often_and_in_small_steps(
    blocks: int, epochs: float, step_blocks: int, rate: float
) -> None:
    found = schedule(blocks)
    assert (found.epochs, found.step_blocks, found.learning_rate) == (epochs, step_blocks, rate)
    assert len(found.reasons) == 3


def test_data_of_any_size_has_enough_steps_or_steps_of_one_block() -> None:
    for blocks in range(1, 3000, 7):
        found = schedule(blocks)
        steps = found.epochs * math.ceil(blocks / found.step_blocks)
        assert steps >= ENOUGH_STEPS or found.step_blocks == 1


def test_a_narrower_model_takes_more_and_smaller_steps() -> None:
    """The built-in one, 256 wide: 87 % in 1,126 steps of one block, 82 in 563 of two."""
    assert schedule(22, hidden=256).step_blocks == 1
    assert (
        schedule(22, hidden=SMOLLM2).step_blocks == schedule(22, hidden=LLAMA_2_7B).step_blocks == 2
    )


def test_a_dozen_records_are_met_in_as_many_steps_as_a_model_needs() -> None:
    """The built-in one, 12 questions in German, one block: none right after 60 steps, 2 of 12 after
    90, 6 after 120, all after 200. SmolLM2's loss is below 0.001 after 30."""
    assert schedule(1, records=12).epochs == 60
    assert schedule(1, records=12, hidden=256).epochs == pytest.approx(202.5)
    assert schedule(2, records=60, hidden=256).epochs == pytest.approx(101.2)
    assert schedule(2, records=12, hidden=256, RECIPE="facts").epochs == 202.5
    assert schedule(5, records=60, hidden=256, RECIPE="facts").epochs == pytest.approx(101.2)
    assert schedule(4, records=100, hidden=256).epochs == 60
    assert schedule(1, records=0, hidden=256).epochs == 15  # of prose


def test_a_wide_adapter_passes_over_large_data_less_often() -> None:
    """It goes on learning the records by heart where one on attention has long stopped."""
    assert schedule(2939, TARGET_MODULES="all-linear").epochs == pytest.approx(3.1)
    assert schedule(138, TARGET_MODULES="all-linear").epochs == schedule(138).epochs


def test_prose_teaches_style_which_takes_few_passes() -> None:
    assert schedule(138, records=0).epochs == pytest.approx(5.1)
    assert schedule(100_000, records=0).epochs == 1


def test_what_is_given_stays_and_the_rest_follows_it() -> None:
    given = {"EPOCHS": "3", "EFFECTIVE_BATCH_SIZE": "16", "LEARNING_RATE": "2e-4"}
    assert schedule(138, **given, WARMUP_RATIO="0.1") == Schedule(3, 16, 2e-4, 0.1)
    assert schedule(138, EPOCHS="3").step_blocks == 1  # 414 steps
    assert schedule(138, EFFECTIVE_BATCH_SIZE="4").learning_rate == 5e-3
    assert schedule(138, BATCH_SIZE="3").step_blocks == 3  # no count of ours is a multiple of it


def test_the_rate_falls_with_the_width_and_is_lower_for_wide_adapters() -> None:
    assert schedule(138, hidden=LLAMA_2_7B).learning_rate == 9.3e-4
    for targets in ("all-linear", "gate_proj,up_proj,down_proj", "q_proj,up_proj"):
        assert schedule(138, TARGET_MODULES=targets).learning_rate == 2e-3
    wide = schedule(138, hidden=LLAMA_2_7B, TARGET_MODULES="all-linear")
    assert wide.learning_rate == 2.8e-4


def test_the_rate_is_that_of_the_blocks_a_step_really_has() -> None:
    """A step ends with its pass: of three blocks none has more."""
    three = schedule(3, EFFECTIVE_BATCH_SIZE="3").learning_rate
    assert schedule(3, EFFECTIVE_BATCH_SIZE="16").learning_rate == three
    assert schedule(3, BATCH_SIZE="8").learning_rate == three
    assert any("as QLORA_BATCH_SIZE says" in r for r in schedule(3, BATCH_SIZE="8").reasons)
    assert schedule(3, EPOCHS="1e9").step_blocks == 2


def test_where_steps_are_counted_the_passes_follow_from_them() -> None:
    assert schedule(138, MAX_STEPS="345", EFFECTIVE_BATCH_SIZE="4").epochs == 10
    assert schedule(3, MAX_STEPS="1").epochs == pytest.approx(0.33)


def test_where_steps_are_counted_the_passes_are_not_explained() -> None:
    assert not any("passes" in reason for reason in schedule(138, MAX_STEPS="8").reasons)
