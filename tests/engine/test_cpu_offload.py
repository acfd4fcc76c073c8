"""What a layer saves goes to pinned host memory and comes back as it was."""

import pytest
import torch

from trainer.engine.activations import LayerActivations
from trainer.engine.cpu_offload import AHEAD, CpuOffload
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


def test_the_cpu_stays_within_some_layers_of_the_gpu() -> None:
    """All that it has started takes memory of its own. Each layer keeps the GPU busy for
    milliseconds."""
    offload, layers = CpuOffload(torch.device("cuda")), 4 * AHEAD
    busy = torch.zeros(4096, 4096, device="cuda", dtype=torch.float16)

    def reached() -> torch.cuda.Event:
        for _ in range(30):
            torch.mm(busy, busy, out=busy)
        return torch.cuda.current_stream().record_event()

    for pins in (True, False):  # which waits for the GPU
        saved = [LayerActivations(torch.ones(8, device="cuda"), None) for _ in range(layers)]
        passed: list[torch.cuda.Event] = []
        for number, layer in [*enumerate(saved), *reversed(list(enumerate(saved)))]:
            passed.append(reached())
            if len(passed) <= layers:
                offload.store(number, layer)
            else:
                offload.fetch(number, saved)
            if len(passed) > AHEAD:
                assert passed[-1 - AHEAD].query()
                assert pins or not passed[-1].query()
