"""One decoder layer gives what transformers' gives, stored or computed again."""

from pathlib import Path

import pytest
import torch
from support.small_models import CONFIGS, documents, packed_batch, tuned_model

from trainer.engine.activations import Batch
from trainer.engine.decoder_layer import LayerPass
from trainer.engine.lora_linear import LinearPass
from trainer.engine.weights import DecoderWeights
from trainer.kernels import PLAIN
from trainer.kernels.attention import Cpu
from trainer.planner.memory_plan import MemoryPlan


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("store", [True, False])
def test_its_output_is_that_of_transformers(family: str, store: bool, tmp_path: Path) -> None:
    model, given = tuned_model(family, tmp_path, "all-linear"), packed_batch()
    with torch.no_grad():
        hidden = model(**given, output_hidden_states=True, use_cache=False).hidden_states
    weights = DecoderWeights.of(model)
    linear = LinearPass(weights.linears(), PLAIN, torch.float32, torch.device("cpu"))
    both = LayerPass(linear, PLAIN, MemoryPlan(0, mlp_rows=40), Cpu())
    positions = given["position_ids"]
    rotations = weights.rotations(hidden[0], positions)
    adapter = {
        key: tensor.detach()
        for one in weights.linears()
        if one.lora is not None
        for key, tensor in ((one.a_key, one.lora.a), (one.b_key, one.lora.b))
    }
    batch = Batch(documents(positions), rotations, adapter, drops=False, random=None)
    with torch.no_grad():
        out, saved = both.forward(weights.layers[1], hidden[1].flatten(0, 1), batch, store=store)
    expected = hidden[2].flatten(0, 1)
    assert (out - expected).norm() / expected.norm() < 1e-5
    assert (saved.gate_MI is not None) == (saved.q_MHD is not None) == store
