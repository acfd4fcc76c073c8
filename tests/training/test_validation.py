"""The held-out loss while a run trains: where it is measured, that it is right, and harmless."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.jobs import STEPS, adapter_bytes, run_here
from support.small_models import PLANS, ROW, packed_batch, tuned_model

from trainer.dataset.packing import Block
from trainer.engine.decoder import Engine
from trainer.training.validation import POINTS, HeldOutLoss, _without_dropout


def block(number: int) -> Block:
    return Block(*(np.full(4, number) for _ in range(3)))


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("steps", [1, 6, 20, 21, 1000])
def test_it_is_measured_at_most_twenty_times_and_at_the_end(steps: int) -> None:
    held_out = HeldOutLoss([block(0)], steps=steps, step_blocks=4)
    due = [step for step in range(1, steps + 1) if held_out.is_due(step)]
    assert due[-1] == steps
    assert min(steps, POINTS / 2) <= len(due) <= POINTS


def test_a_long_held_out_part_is_thinned_evenly_and_a_missing_one_is_never_due() -> None:
    held_out = HeldOutLoss([block(n) for n in range(1000)], steps=100, step_blocks=16)
    assert [int(b.labels[0]) for b in held_out._blocks] == list(range(0, 1000, 125))
    assert not HeldOutLoss([], steps=100, step_blocks=16).is_due(100)


@pytest.mark.parametrize("engine", ["auto", "stock"])
def test_measuring_is_right_and_changes_no_weight(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last measurement is the loss that the finished adapter has by the other code path."""
    monkeypatch.setattr("trainer.training.validation.SHARE", 1e9)  # all held-out blocks
    run = run_here(tmp_path / "measured", ENGINE=engine, LORA_DROPOUT="0.3")
    measured = [row["held_out_loss"] for row in rows(run)]
    record = json.loads((run / "run.json").read_text())
    assert len(measured) == STEPS
    # On some CPUs bitsandbytes multiplies in bf16 once a model is in evaluation mode.
    assert measured[-1] == pytest.approx(record["evaluation"]["tuned"]["loss"], rel=2e-3)
    assert record["training"]["best_held_out_loss"] == min(measured)
    monkeypatch.setattr(HeldOutLoss, "is_due", lambda self, step: False)
    plain = run_here(tmp_path / "plain", ENGINE=engine, LORA_DROPOUT="0.3")
    assert "held_out_loss" not in rows(plain)[-1]
    assert adapter_bytes(plain) == adapter_bytes(run)


@pytest.mark.parametrize("plan", ["stored", "half", "unpacked", "sliced"])
def test_the_engine_measures_what_the_stock_path_measures(plan: str, tmp_path: Path) -> None:
    model = tuned_model("llama", tmp_path, "all-linear", dropout=0.5)
    batch = packed_batch()
    columns = (batch[name] for name in ("input_ids", "labels", "position_ids"))
    blocks = [Block(*(c.numpy() for c in row)) for row in zip(*columns, strict=True)]
    held_out = HeldOutLoss(blocks, steps=1, step_blocks=1000)
    stock = held_out.measure(model, None, 1)
    engine = Engine(model, dtype=torch.float32, plan=PLANS[plan], row_tokens=ROW)
    random = torch.get_rng_state()
    for micro_batch in (1, 2):
        assert held_out.measure(model, engine, micro_batch) == pytest.approx(stock, rel=1e-5)
    assert torch.equal(torch.get_rng_state(), random)


def test_each_layer_is_again_in_the_mode_that_it_was_in() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5).eval())
    with _without_dropout(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False]
