"""What follows from a memory plan is made anew with another one, and given back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support.small_models import PLANS, ROW, assert_same, documents, ours, packed_batch, tuned_model

from trainer.engine.decoder import Engine
from trainer.kernels import PLAIN
from trainer.planner.memory_plan import MemoryPlan


def test_memory_that_runs_out_while_weights_are_unpacked_leaves_them_packed(
    tmp_path: Path,
) -> None:
    """torch says it as here; the plan goes on without what is there for speed alone."""
    calls = 0

    def dequantise(weight: Any, out: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 9:  # in the second of two layers
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 MiB")
        matrix: torch.Tensor = PLAIN.dequantise(weight, out)
        return matrix

    model, batch = tuned_model("llama", tmp_path, "q_proj,v_proj"), packed_batch()
    short = replace(PLAIN, dequantise=dequantise)
    plan = MemoryPlan(3, unpacked_layers=2)
    made = Engine(model, dtype=torch.float32, plan=plan, row_tokens=ROW, kernels=short)
    assert made.plan == MemoryPlan(3)
    assert calls == 9
    found = ours(model, batch, made)
    made.change(plan)
    assert made.plan == plan
    for parameter in made.parameters:
        parameter.grad = None
    assert_same(ours(model, batch, made), found, 1e-6)


def test_another_plan_in_between_changes_nothing(tmp_path: Path) -> None:
    model, batch = tuned_model("llama", tmp_path, "all-linear"), packed_batch()
    made = Engine(model, dtype=torch.float32, plan=PLANS["half"], row_tokens=ROW)
    before = ours(model, batch, made)
    for name in ("recomputed", "unpacked", "half"):
        made.change(PLANS[name])
        for parameter in made.parameters:
            parameter.grad = None
        assert_same(ours(model, batch, made), before, 1e-5)


def test_a_held_out_loss_is_without_dropout_and_noise_and_draws_nothing(tmp_path: Path) -> None:
    model, batch = tuned_model("llama", tmp_path, "q_proj,v_proj", dropout=0.5), packed_batch()
    where = documents(batch["position_ids"])
    columns = batch["input_ids"], batch["labels"], batch["position_ids"], where
    made = Engine(model, dtype=torch.float32, plan=PLANS["half"], row_tokens=ROW, noise_alpha=5.0)
    state = torch.get_rng_state()
    held_out = made.held_out_sum(*columns)
    assert torch.equal(torch.get_rng_state(), state)
    assert not held_out.requires_grad
    trained = batch["labels"][:, 1:].ne(-100).sum()
    stock = model.eval()(**batch, use_cache=False).loss * trained
    assert torch.allclose(held_out, stock, rtol=1e-5)
