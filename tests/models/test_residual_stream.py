"""A base whose residual stream leaves the range of fp16 is read and trained in it all the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import write_checkpoint
from support.bases import load_small, settings_for
from support.small_models import ROW, ours, packed_batch, tuned_model

from trainer.engine.decoder import Engine
from trainer.models.locate import BUILTIN
from trainer.models.probe import check_range
from trainer.planner.memory_plan import MemoryPlan

LARGE = 3e4  # of the second norm's weights: the stream of each token passes 65,504
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def large(model: Any) -> Any:
    with torch.no_grad():
        model.get_decoder().layers[0].post_feedforward_layernorm.weight += LARGE
    return model


@pytest.mark.parametrize("plan", [MemoryPlan(3), MemoryPlan(0, mlp_rows=17, logit_rows=5)])
def test_the_engine_trains_it_in_fp16_as_in_fp32(plan: MemoryPlan, tmp_path: Path) -> None:
    batch, found = packed_batch(), {}
    batch["input_ids"].clamp_(min=1)  # the pad token's embedding is zero, and its norm without end
    for precision, dtype in DTYPES.items():
        model = tuned_model("gemma3_text", tmp_path / precision, "all-linear", precision=precision)
        engine = Engine(large(model), dtype=dtype, plan=plan, row_tokens=ROW)
        loss, gradients = ours(model, batch, engine)
        found[precision] = loss, torch.cat([g.flatten() for g in gradients.values()])
    (loss, gradient), (true_loss, true_gradient) = found["fp16"], found["fp32"]
    assert loss == pytest.approx(true_loss, rel=1e-3)
    assert (gradient - true_gradient).norm() < 1e-2 * true_gradient.norm()


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "gemma3"])
def test_transformers_reads_it_in_fp16_as_in_fp32(family: str, tmp_path: Path) -> None:
    base = write_checkpoint(family, tmp_path / "base", BUILTIN / "tiny")
    words, logits = torch.arange(100, 140)[None], {}
    for precision in DTYPES:
        settings = settings_for(base, tmp_path / precision)
        model = large(load_small(settings, precision=precision))
        assert check_range(model, words[0].numpy(), "mine") < 1000 or precision == "fp32"
        with torch.no_grad():
            logits[precision] = model(input_ids=words, use_cache=False).logits.float()
    off = (logits["fp16"] - logits["fp32"]).norm() / logits["fp32"].norm()
    assert off < 5e-2  # NF4 of weights in 16 bits is not quite that of weights in 32
