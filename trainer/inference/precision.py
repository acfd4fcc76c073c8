"""The precision in which a tuned model computes outside of training."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def compute_precision(model: Any) -> Iterator[None]:
    """Run float32 adapter and 16-bit base together, as training does."""
    import torch

    dtype = model.get_input_embeddings().weight.dtype
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield
