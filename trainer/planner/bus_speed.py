"""How fast layers come from host memory, tried for a moment: a card may sit in any slot."""

import math
import time

STEP = 1.25
TRIED_BYTES, TURNS = 2**26, 8


def bus_bytes_per_s() -> int:
    """From pinned host memory to the GPU; as fast as what else uses the bus lets it be."""
    import torch

    host = torch.empty(TRIED_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(TRIED_BYTES, dtype=torch.uint8, device="cuda")
    there.copy_(host, non_blocking=True)  # the first one is slower
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(TURNS):
        there.copy_(host, non_blocking=True)
    torch.cuda.synchronize()
    return int(TURNS * TRIED_BYTES / (time.perf_counter() - begin))


def in_steps(measured: float, usual: float) -> int:
    """`measured`, in steps of a quarter from what is `usual`: a run that is started again plans as
    it did before, though no two measurements are the same."""
    return int(usual * STEP ** round(math.log(measured / usual, STEP)))
