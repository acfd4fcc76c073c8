"""A step of rows: all that run say one token more, those that have ended nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.plain_attention import PlainAttention
from support.small_models import tuned_model

from trainer.engine.decode_rows import DecodeRows
from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.engine.prompt import Prompt
from trainer.kernels.attention import Cpu

PROMPTS = [[4, 9, 100], [7], [250, 3]]
NEVER = 331


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return tuned_model("llama", tmp_path, "q_proj,v_proj").eval()


def rows_of(model: Any, ends: list[int], most: int) -> DecodeRows:
    decoder = GreedyDecoder(model, ends)
    decoder._room(len(PROMPTS), 16, most)
    assert decoder._made is not None
    return DecodeRows(decoder._made, len(PROMPTS), 16, most, ends)


def run(rows: DecodeRows, steps: int, most: tuple[int, int, int] | None = None) -> list[list[int]]:
    limits = most or (rows.most,) * 3
    rows.admit([Prompt(*pair) for pair in zip(PROMPTS, limits, strict=True)], 0, tuned=True)
    for _ in range(steps):
        rows.step(len(PROMPTS), tuned=True)
    return rows.answers(range(len(PROMPTS)))


def test_each_step_is_one_token_of_each_row(model: Any) -> None:
    whole = run(rows_of(model, [NEVER], 9), 8)
    assert [len(answer) for answer in whole] == [9, 9, 9]
    for steps in range(9):
        rows = rows_of(model, [NEVER], 9)
        assert run(rows, steps) == [answer[: steps + 1] for answer in whole]
        assert rows.newest(2) == [whole[0][steps], whole[1][steps]]
        assert rows.running(3) == [steps < 8] * 3


def test_a_row_that_has_ended_stays_as_it_is(model: Any) -> None:
    whole = run(rows_of(model, [NEVER], 9), 8)
    rows = rows_of(model, [whole[0][2]], 5)
    ended = run(rows, 12)
    assert ended[0] == whole[0][: whole[0].index(whole[0][2]) + 1]
    assert rows.running(3) == [False] * 3
    assert rows.newest(1) == [whole[0][2]]
    assert all(answer == full[: len(answer)] for answer, full in zip(ended, whole, strict=True))


def test_each_row_has_a_limit_of_its_own(model: Any) -> None:
    whole = run(rows_of(model, [NEVER], 9), 8)
    limited = run(rows_of(model, [NEVER], 9), 8, most=(4, 9, 1))
    assert limited == [whole[0][:4], whole[1], whole[2][:1]]


def test_a_row_goes_on_at_another_place(model: Any) -> None:
    whole = run(rows_of(model, [NEVER], 9), 8)
    rows = rows_of(model, [NEVER], 9)
    run(rows, 3)
    rows.move(2, 0)
    assert rows.running(3) == [True, True, False]
    for _ in range(5):
        rows.step(2, tuned=True)
    assert rows.answers([0, 1]) == [whole[2], whole[1]]


def test_a_row_that_is_drawn_leaves_its_neighbours_alone(model: Any) -> None:
    whole, drawn = run(rows_of(model, [NEVER], 9), 8), set()
    for seed in range(3):
        torch.manual_seed(seed)
        rows = rows_of(model, [NEVER], 9)
        prompts = [Prompt(PROMPTS[0], 9), Prompt(PROMPTS[1], 9, temperature=50.0)]
        rows.admit([*prompts, Prompt(PROMPTS[2], 9)], 0, tuned=True)
        for _ in range(8):
            rows.step(3, tuned=True)
        assert rows.answers([0, 2]) == [whole[0], whole[2]]
        drawn.add(tuple(rows.answers([1])[0]))
    assert len(drawn) == 3


def test_the_base_may_go_on_where_the_adapter_began(model: Any) -> None:
    """Both read the same cache, so that either can answer in the same rows."""
    rows = rows_of(model, [NEVER], 9)
    tuned = run(rows, 8)
    rows.admit([Prompt(prompt, 9) for prompt in PROMPTS], 0, tuned=False)
    assert rows.answers(range(3)) == [[token] for token in first_tokens(model)]
    assert run(rows, 8) == tuned


def test_the_rest_of_prompts_sees_copied_beginnings_together_as_one_by_one(model: Any) -> None:
    """A GPU reads them in one launch, from a copy of their keys; a CPU from the cache."""
    beginning = [(7 * at) % NEVER for at in range(40)]
    prompts = [Prompt([*beginning, *range(at, 9 + 3 * at)], 5) for at in range(7)]
    found, launches = [], list[bool]()

    class Counted(PlainAttention):
        def forward(self, *given: Any) -> Any:
            launches.append(given[-1].keys is not None)
            return super().forward(*given)

    for packed in (Cpu(), Counted()):
        decoder = GreedyDecoder(model, [NEVER])
        decoder._packed = packed  # type: ignore[assignment]
        running = decoder.open(7, 80, 5, tuned=True)
        for some in (prompts[:4], prompts[4:]):
            running.join({prompts.index(prompt): prompt for prompt in some})
        for _ in range(4):
            running.step()
        found.append(running.take_ended())
    assert found[0] == found[1] and len(found[0]) == 7
    assert launches == [False, False, False, True, True, True, True, True, True]


def first_tokens(model: Any) -> list[int]:
    with torch.no_grad(), model.disable_adapter():
        return [int(model(torch.tensor([p])).logits[0, -1].argmax()) for p in PROMPTS]
