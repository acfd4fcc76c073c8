"""Each fused kernel gives what its plain torch reference gives, and compiles for a T4."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from support.jobs import ROOT
from support.small_models import assert_same, ours, packed_batch, tuned_model

from trainer.engine.decoder import Engine
from trainer.kernels import (
    FUSED,
    PLAIN,
    cross_entropy,
    dequantise,
    dropout,
    embedding,
    rms_norm,
    rope,
    swiglu,
)
from trainer.planner.memory_plan import MemoryPlan

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter

MODULES = [cross_entropy, dequantise, dropout, embedding, rms_norm, rope, swiglu]
ODD = [(1, 64), (7, 341), (13, 4096)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


KERNEL = re.compile(r"@jit\ndef (\w+)")
NAMES = {
    f"{module.__name__.rpartition('.')[2]}.{name}"
    for module in MODULES
    for name in KERNEL.findall(Path(module.__file__ or "").read_text())
}


@pytest.fixture
def noise() -> Any:
    generator = torch.Generator().manual_seed(0)
    place = "cuda" if torch.cuda.is_available() else "cpu"

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(place, dtype)

    return make


def assert_near(found: torch.Tensor, truth: torch.Tensor) -> None:
    off = (found.float() - truth.float()).norm() / truth.float().norm().clamp(min=1e-12)
    assert off < TOLERANCE[truth.dtype]


@pytest.mark.parametrize("shape", [(64, 64), (40, 192), (1057, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dequantise_is_bitsandbytes_to_the_bit(shape: Any, dtype: torch.dtype, noise: Any) -> None:
    weight = bitsandbytes.nn.Params4bit(
        noise(*shape, dtype=dtype), requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    if not weight.bnb_quantized:
        weight = weight._quantize(weight.device)
    nf4 = dequantise.Nf4.of(weight)
    out = torch.full(shape, torch.nan, dtype=dtype, device=weight.device)
    assert torch.equal(dequantise.fused(nf4, out), dequantise.reference(nf4, out))


@pytest.mark.parametrize(("words", "columns"), [(1, 64), (7, 341)])
def test_embedding(words: int, columns: int, noise: Any) -> None:
    table = noise(words, columns)
    ids = torch.arange(2 * words, device=table.device) % words
    truth = embedding.reference(ids, table, torch.float16)
    assert torch.equal(embedding.fused(ids, table, torch.float16), truth)


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rms_norm(shape: tuple[int, int], dtype: torch.dtype, noise: Any) -> None:
    x, grad, residual = (noise(*shape, dtype=dtype) for _ in range(3))
    weight = noise(shape[1], dtype=dtype)
    assert_near(rms_norm.fused(x, weight, 1e-5), rms_norm.reference(x, weight, 1e-5))
    for added in (None, residual):
        truth = rms_norm.reference_backward(grad, x, weight, 1e-5, added)
        assert_near(rms_norm.fused_backward(grad, x, weight, 1e-5, added), truth)


def test_the_reference_gradient_of_rms_norm_is_that_of_autograd(noise: Any) -> None:
    x, weight, grad = noise(5, 96).requires_grad_(), noise(96), noise(5, 96)
    rms_norm.reference(x, weight, 1e-5).backward(grad)
    assert_near(rms_norm.reference_backward(grad, x.detach(), weight, 1e-5), x.grad)


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 1, 2), (7, 3, 20), (5, 32, 128)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rope(tokens: int, heads: int, size: int, dtype: torch.dtype, noise: Any) -> None:
    angle = noise(tokens, size // 2)
    cos, sin = (torch.cat([f(angle)] * 2, -1).to(dtype) for f in (torch.cos, torch.sin))
    for back in (False, True):
        x = noise(tokens, heads, size, dtype=dtype)
        truth = rope.reference(x.clone(), cos, sin, back=back)
        assert_near(rope.fused(x, cos, sin, back=back), truth)


def test_rope_backwards_undoes_it(noise: Any) -> None:
    angle, x = noise(4, 8), noise(4, 2, 16)
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
    there = rope.reference(x.clone(), cos, sin)
    assert_near(rope.reference(there, cos, sin, back=True), x)


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu(shape: tuple[int, int], dtype: torch.dtype, noise: Any) -> None:
    gate, up, grad = (noise(*shape, dtype=dtype) for _ in range(3))
    assert_near(swiglu.fused(gate, up), swiglu.reference(gate, up))
    truth = swiglu.reference_backward(grad, gate, up)
    for found, expected in zip(swiglu.fused_backward(grad, gate, up), truth, strict=True):
        assert_near(found, expected)


def test_the_reference_gradient_of_swiglu_is_that_of_autograd(noise: Any) -> None:
    gate, up, grad = noise(3, 50).requires_grad_(), noise(3, 50).requires_grad_(), noise(3, 50)
    swiglu.reference(gate, up).backward(grad)
    found = swiglu.reference_backward(grad, gate.detach(), up.detach())
    assert_near(found[0], gate.grad)
    assert_near(found[1], up.grad)


@pytest.mark.parametrize(("rows", "words"), [(1, 3), (6, 331), (4, 20000)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_cross_entropy(rows: int, words: int, dtype: torch.dtype, noise: Any) -> None:
    logits = noise(rows, words, dtype=dtype) * 3
    target = torch.arange(rows, device=logits.device) % words
    target[rows // 2 :] = -100
    loss, grad = cross_entropy.reference(logits, target)
    found_loss, found_grad = cross_entropy.fused(logits, target)
    assert_near(found_loss, loss)
    assert_near(found_grad, grad)


def test_the_reference_gradient_of_cross_entropy_is_that_of_autograd(noise: Any) -> None:
    logits, target = noise(5, 11).requires_grad_(), torch.tensor([3, -100, 0, 10, -100])
    target = target.to(logits.device)
    loss, grad = cross_entropy.reference(logits.detach(), target)
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    expected.backward()
    assert_near(loss.sum(), expected.detach())
    assert_near(grad, logits.grad)


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout(shape: tuple[int, int], p: float, noise: Any) -> None:
    x, out = noise(*shape), noise(*shape)
    seed = dropout.Seed(torch.tensor([12345678901], device=x.device), salt=5)
    assert torch.equal(dropout.fused(x, seed, p), dropout.reference(x, seed, p))
    later = replace(seed, first=shape[1])
    if shape[0] > 1:  # a part of the rows has the same mask as among all
        assert torch.equal(dropout.fused(x[1:], later, p), dropout.reference(x, seed, p)[1:])
    truth = dropout.reference_add(out.clone(), x, seed, p)
    assert_near(dropout.fused_add(out.clone(), x, seed, p), truth)


def test_dropout_keeps_the_share_that_it_should_and_differs_from_layer_to_layer() -> None:
    size = 200_000
    masks = [
        dropout.keeps(dropout.Seed(torch.tensor([random]), salt), size, 0.1).float()
        for random, salt in ((1, 0), (1, 1), (2, 0))
    ]
    deviation = (0.1 * 0.9 / size) ** 0.5
    assert all(abs(float(mask.mean()) - 0.9) < 5 * deviation for mask in masks)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = float((masks[first] * masks[second]).mean())
        assert abs(both - 0.81) < 5 * (0.81 * 0.19 / size) ** 0.5


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
    assert not [m.__name__ for m in MODULES if "tl.dot" in Path(m.__file__ or "").read_text()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/engine/test_cuda.py does it on a GPU")
def test_a_decoder_over_fused_kernels_gives_what_it_gives_over_plain_ones(tmp_path: Path) -> None:
    """All of them together, forward and backward, with dropout and layers that are computed again.
    Qwen3's have the most: norms on heads, fewer heads for keys."""
    model = tuned_model("qwen3", tmp_path, "q_proj,down_proj", dropout=0.2)
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
