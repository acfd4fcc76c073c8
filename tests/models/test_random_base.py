"""A base with random weights has the modules and sizes of the real one."""

import torch

from trainer.models.load import load_base
from trainer.models.locate import locate_base
from trainer.models.random_base import random_base
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings


def test_it_is_the_base_but_for_its_weights() -> None:
    settings = Settings.read({"base_model": "builtin:tiny"}, {}, trains=False)
    base, fp32 = locate_base(settings), Precision("fp32", "a CPU")
    made = random_base(base, fp32)
    real = load_base(base, settings, fp32, Device("cpu", "CPU", None, 0))
    sizes = {name: (t.dtype, t.shape) for name, t in real.named_parameters()}
    assert {name: (t.dtype, t.shape) for name, t in made.named_parameters()} == sizes
    assert str(made) == str(real)
    with torch.no_grad():
        assert made(torch.arange(8)[None]).logits.isfinite().all()
    assert not any(p.requires_grad for p in made.parameters())
