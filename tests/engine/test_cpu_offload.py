"""What a layer saves goes to pinned host memory and comes back as it was."""

import pytest
import torch

from trainer.engine.activations import LayerActivations
from trainer.engine.cpu_offload import CpuOffload
from trainer.kernels.attention import Attended

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
pytestmark = [pytest.mark.cuda, needs_gpu]


@pytest.mark.parametrize("with_attention", [False, True])
def test_layers_come_back_from_the_last_to_the_first(with_attention: bool) -> None:
    offload = CpuOffload(torch.device("cuda"))
    for _ in range(2):  # the second micro-batch finds its buffers
        inputs = [torch.randn(5, 8, device="cuda") for _ in range(3)]
        outputs = [torch.randn(5, 2, 4, device="cuda") for _ in range(3)]
        saved = [
            LayerActivations(x.clone(), Attended(out.clone(), out, ()) if with_attention else None)
            for x, out in zip(inputs, outputs, strict=True)
        ]
        for number, layer in enumerate(saved):
            offload.store(number, layer)
            assert layer.x_MH is None
        for number in reversed(range(3)):
            offload.fetch(number, saved)
            layer = saved[number]
            assert layer.x_MH is not None and torch.equal(layer.x_MH, inputs[number])
            if layer.attended is not None:
                assert torch.equal(layer.attended.out_MHD, outputs[number])
