"""Last norm, head and cross-entropy against the same under autograd."""

import pytest
import torch

from trainer.engine.lm_head import LmHead
from trainer.kernels import PLAIN
from trainer.kernels.rms_norm import reference

ROWS, ROW, HIDDEN, WORDS = 2, 6, 8, 11


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_loss_and_gradient_are_those_of_autograd(rows: int) -> None:
    noise = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, HIDDEN, generator=noise) for n in (WORDS, ROWS * ROW))
    norm = torch.rand(HIDDEN, generator=noise)
    labels = torch.randint(WORDS, (ROWS, ROW), generator=noise)
    labels[0, :3] = -100
    head = LmHead(weight, norm, 1e-6, PLAIN, torch.device("cpu"), rows)
    loss, grad = head.loss(x, labels)
    found = head.backward(grad, x, torch.tensor(0.5))

    x.requires_grad_()
    logits = (reference(x, norm, 1e-6) @ weight.t()).view(ROWS, ROW, WORDS)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    (0.5 * expected).backward()
    assert torch.allclose(loss, expected)
    assert torch.allclose(found, x.grad, atol=1e-6)
