"""What the layers of a micro-batch share."""

from typing import Any

import torch

from trainer.engine.activations import Batch


def test_gradients_of_one_tensor_are_summed_in_place() -> None:
    nothing: Any = None
    batch = Batch(nothing, {}, {}, drops=False, random=None)
    first = torch.ones(2)
    batch.add((0, "A"), first)
    batch.add((0, "B"), torch.ones(3))
    batch.add((0, "A"), torch.ones(2))
    assert batch.gradients[0, "A"] is first
    assert first.tolist() == [2.0, 2.0]
    assert batch.gradients[0, "B"].tolist() == [1.0, 1.0, 1.0]
