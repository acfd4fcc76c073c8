"""Shapes, noise and tolerances for comparing a fused kernel with its reference."""

import torch

ODD = [(1, 64), (7, 341), (13, 4096)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assert_near(found: torch.Tensor, truth: torch.Tensor) -> None:
    off = (found.float() - truth.float()).norm() / truth.float().norm().clamp(min=1e-12)
    assert off < TOLERANCE[truth.dtype]
