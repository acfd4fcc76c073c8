"""A mixture of experts whose rows only the device counts, as in a CUDA graph."""

from pathlib import Path

import pytest
import torch
from support.small_models import ROW, documents, packed_batch, tuned_model

from trainer.engine.activations import Inputs
from trainer.engine.decoder import Engine
from trainer.planner.memory_plan import MemoryPlan


@pytest.mark.parametrize("stored", [3, 0])
def test_all_experts_at_once_give_what_a_few_at_a_time_give(stored: int, tmp_path: Path) -> None:
    """The experts that no token is sent to among them: eight there are, for few tokens."""
    model = tuned_model("qwen3_moe", tmp_path, "all-linear")
    given = {name: values[:1, :ROW] for name, values in packed_batch().items()}
    names = "input_ids", "labels", "position_ids"
    inputs = Inputs(*(given[name] for name in names), documents(given["position_ids"]))
    found = []
    for graph in (False, True):  # without one being made: a CPU has none
        plan = MemoryPlan(stored, mlp_rows=5, graph=graph)
        passes = Engine(model, dtype=torch.float32, plan=plan, row_tokens=ROW)._present
        saved = passes.forward(inputs)
        loss = saved.loss.clone()
        found.append([loss, *passes.backward(saved, torch.ones(()))])
    for ours, truth in zip(*found, strict=True):
        assert torch.allclose(ours, truth, rtol=1e-5, atol=1e-6 * float(truth.abs().max()))
