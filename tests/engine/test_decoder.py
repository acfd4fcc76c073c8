"""The hand-written forward and backward pass gives what the stock stack gives."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.jobs import run_here
from support.small_models import (
    ADAPTER_FILE,
    CONFIGS,
    PLANS,
    ROW,
    assert_same,
    gradients,
    ours,
    packed_batch,
    tuned_model,
)

from trainer.engine.decoder import Engine
from trainer.planner.memory_plan import MemoryPlan


def stock(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    trained = batch["labels"][:, 1:].ne(-100).sum()
    loss = model(**batch, use_cache=False).loss * trained
    return float(loss.detach()), gradients(model, loss)


def by_documents(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """The same, each document alone."""
    starts = [*(batch["position_ids"].flatten() == 0).nonzero().flatten().tolist()]
    loss = torch.zeros(())
    for bounds in pairwise([*starts, batch["position_ids"].numel()]):
        one = {name: values.flatten()[slice(*bounds)][None] for name, values in batch.items()}
        trained = one["labels"][:, 1:].ne(-100).sum()
        loss = loss + model(**one, use_cache=False).loss * trained
    return float(loss.detach()), gradients(model, loss)


@pytest.mark.parametrize("family", sorted(CONFIGS.keys() - {"qwen3_5_text"}))
@pytest.mark.parametrize("targets", ["o_proj,down_proj", "all-linear"])
def test_loss_and_gradients_are_those_of_the_stock_stack(
    family: str, targets: str, tmp_path: Path
) -> None:
    model, batch = tuned_model(family, tmp_path, targets), packed_batch()
    made = Engine(model, dtype=torch.float32, plan=PLANS["stored"], row_tokens=ROW)
    assert_same(ours(model, batch, made), stock(model, batch), 1e-5)


@pytest.mark.parametrize("plan", ["stored", "sliced", "attention"])
def test_a_state_ends_with_its_document(plan: str, tmp_path: Path) -> None:
    """Layers that keep one beside layers of attention, whose output has a gate. What decides how
    fast a state decays has a gradient a thousandth of the others', in which rounding shows."""
    model, batch = tuned_model("qwen3_5_text", tmp_path, "all-linear"), packed_batch()
    made = Engine(model, dtype=torch.float32, plan=PLANS[plan], row_tokens=ROW)
    found, expected = ours(model, batch, made), by_documents(model, batch)
    assert_same(found, expected, 2e-4)
    off = torch.cat([(found[1][n] - g).flatten() for n, g in expected[1].items()]).norm()
    assert off < 1e-5 * torch.cat([g.flatten() for g in expected[1].values()]).norm()


@pytest.mark.parametrize("plan", ["stored", "sliced"])
def test_a_mixture_beside_layers_that_are_none(plan: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"mlp_only_layers": [1], "norm_topk_prob": False}
    model, batch = tuned_model("qwen3_moe", tmp_path, "all-linear", **changes), packed_batch()
    made = Engine(model, dtype=torch.float32, plan=PLANS[plan], row_tokens=ROW)
    assert_same(ours(model, batch, made), stock(model, batch), 1e-5)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("targets", ["q_proj,v_proj", "all-linear"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_no_plan_changes_a_gradient(
    plan: str, targets: str, dropout: float, tmp_path: Path
) -> None:
    """With dropout those that recompute are compared: one that stores all on a CPU draws masks."""
    if dropout and PLANS[plan].stored_layers == 3:
        pytest.skip("draws its masks as the stock stack does, which has a test of its own")
    model, batch = tuned_model("llama", tmp_path, targets, dropout), packed_batch()
    results = []
    for chosen in (MemoryPlan(stored_layers=2), PLANS[plan]):
        torch.manual_seed(5)
        made = Engine(model, dtype=torch.float32, plan=chosen, row_tokens=ROW)
        results.append(ours(model, batch, made))
    assert_same(results[1], results[0], 1e-5)


def test_dropout_draws_what_the_stock_stack_draws(tmp_path: Path) -> None:
    model, batch = tuned_model("llama", tmp_path, "q_proj,v_proj", dropout=0.3), packed_batch()
    made = Engine(model, dtype=torch.float32, plan=PLANS["stored"], row_tokens=ROW)
    torch.manual_seed(7)
    expected = stock(model, batch)
    torch.manual_seed(7)
    assert_same(ours(model, batch, made), expected, 1e-5)


NO_MEMORY = {  # as torch, the driver and cuBLAS say it, at these calls
    2: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    4: RuntimeError("CUDA error: out of memory"),
    7: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


def test_memory_that_runs_out_leads_to_leaner_plans_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"BATCH_SIZE": "2", "LORA_DROPOUT": "0"}
    whole = load_file(run_here(tmp_path / "whole", **settings) / "adapter" / ADAPTER_FILE)
    compute, tried = Engine.loss_sum, []

    def loss_sum(engine: Engine, *arguments: Any) -> torch.Tensor:
        tried.append((engine.plan.stored_layers, engine.plan.unpacked_layers))
        if len(tried) in NO_MEMORY:
            raise NO_MEMORY[len(tried)]
        return compute(engine, *arguments)

    monkeypatch.setattr(Engine, "loss_sum", loss_sum)
    found = load_file(run_here(tmp_path / "short", **settings) / "adapter" / ADAPTER_FILE)
    assert list(dict.fromkeys(tried)) == [(4, 4), (4, 0), (2, 0), (1, 0)]
    for name, tensor in whole.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name


def test_what_is_no_lack_of_memory_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss_sum(engine: Engine, *arguments: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Engine, "loss_sum", loss_sum)
    with pytest.raises(RuntimeError, match="illegal"):
        run_here(tmp_path)
