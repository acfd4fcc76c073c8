"""Each fused kernel gives what its plain torch reference gives, and compiles for a T4."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.jobs import ROOT
from support.small_models import assert_same, ours, packed_batch, tuned_model

from trainer.engine.decoder import Engine
from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.kernels import FUSED, PLAIN
from trainer.planner.memory_plan import MemoryPlan

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter

MODULES = sorted((ROOT / "trainer" / "kernels").glob("*.py"))
KERNEL = re.compile(r"@jit\ndef (\w+)")
NAMES = {
    f"{module.stem}.{name}" for module in MODULES for name in KERNEL.findall(module.read_text())
}


def test_every_kernel_compiles_without_a_gpu() -> None:
    """In a process of its own, because the others run in Triton's interpreter."""
    environ = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    capabilities = ["75", "80", "90"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "compile_kernels.py"), *capabilities],
        env=environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {f"{c} {n}" for c in capabilities for n in NAMES}


def test_no_kernel_multiplies_matrices() -> None:
    """On a T4 tl.dot does not reach the tensor cores: products go to cuBLAS."""
    assert not [module.stem for module in MODULES if "tl.dot" in module.read_text()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/engine/test_cuda.py does it on a GPU")
def test_a_decoder_over_fused_kernels_gives_what_it_gives_over_plain_ones(tmp_path: Path) -> None:
    """All of them together, forward and backward, with dropout and layers that are computed again.
    Qwen3.5's have the most: norms on heads, fewer heads for keys, the delta rule."""
    model = tuned_model("qwen3_5_text", tmp_path, "q_proj,down_proj", dropout=0.2)
    batch, plan = (
        {n: x[:1, :24] for n, x in packed_batch().items()},
        MemoryPlan(1, mlp_rows=16, unpacked_layers=3),
    )
    found = []
    for kernels in (PLAIN, FUSED):
        torch.manual_seed(5)
        made = Engine(model, dtype=torch.float32, plan=plan, row_tokens=24, kernels=kernels)
        found.append(ours(model, batch, made))
    assert_same(found[1], found[0], 1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/engine/test_cuda.py does it on a GPU")
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen3", {}),
        # Norms of a head of keys, or of all heads, in rows of a product of q, k and v together.
        ("gemma3_text", {"num_key_value_heads": 1, "layer_types": ["full_attention"] * 2}),
        ("olmo2", {}),
    ],
)
def test_answers_over_fused_kernels_are_those_over_plain_ones(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    sizes = {"num_hidden_layers": 2} | changes
    model = tuned_model(family, tmp_path, "q_proj,v_proj", **sizes).eval()
    prompts = [[5, 9, 30], [7], [1, 2, 3, 4, 5]]
    found = []
    for kernels in (PLAIN, FUSED):
        decoder = GreedyDecoder(model, [331], kernels)
        found.append(dict(decoder.answers(prompts, 4, tuned=True, most_rows=2)))
    assert found[1] == found[0]
