"""The learning rate of each optimizer step, as a share of its peak."""

import math


def share_of_peak(step: int, *, steps: int, warmup_ratio: float, scheduler: str) -> float:
    """For the optimizer step number `step`, from 0, of `steps`.

    It rises over the warm-up, which takes `warmup_ratio` of the steps, and then falls as
    `scheduler` says: cosine (half a period) or linear to 0 after the last step; or stays, constant.
    No step is at rate 0, not even the first of the warm-up or the only one of a run: transformers'
    schedules begin at 0, so that a run of one step trains nothing.
    """
    warmup = min(round(warmup_ratio * steps), steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if scheduler == "constant":
        return 1.0
    done = min((step - warmup) / (steps - warmup), 1.0)
    return 1.0 - done if scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
