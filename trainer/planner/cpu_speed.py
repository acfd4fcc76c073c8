"""How fast this machine's CPU computes, tried for two seconds: its name says nothing."""

import time
from collections.abc import Callable
from dataclasses import replace

from trainer.planner.choose import Execution
from trainer.planner.gpus import Speed
from trainer.planner.memory_plan import FULL, HALF, tokens_per_s
from trainer.planner.model_shape import ModelShape
from trainer.planner.stock_path import stock_tokens_per_s

TRIED_S = 1.0  # of products, and of element-wise work
MOST_ROWS = 1024  # tokens: enough for a product's full speed
MOST_WIDE = 4096  # of a layer: as fast as wider ones

SHARE = 0.8  # of what products and element-wise work alone would reach


def predicted_on_this_cpu(execution: Execution, shape: ModelShape, block_tokens: int) -> Execution:
    """`execution` with the tokens/s that this CPU is predicted to reach."""
    speed = cpu_speed(shape, execution.blocks * block_tokens)
    if execution.plan is None:
        rate = stock_tokens_per_s(shape, execution.blocks, block_tokens, speed)
    else:
        rate = tokens_per_s(shape, execution.plan, execution.blocks, block_tokens, speed)
    return replace(execution, tokens_per_s=SHARE * rate)


def cpu_speed(shape: ModelShape, tokens: int) -> Speed:
    """Products in float32 and element-wise work of the sizes of a model, for `tokens` at once.

    As fast as what else runs here lets it be. Bytes are counted as `memory_plan` does, for values
    of 16 bits, of which a CPU's have twice as many.
    """
    import torch

    rows = min(tokens, MOST_ROWS)
    hidden, inner = min(shape.hidden, MOST_WIDE), min(shape.intermediate, MOST_WIDE)
    x_MH, w_HI = torch.randn(rows, hidden), torch.randn(hidden, inner)
    gate_MI, up_MI = torch.randn(rows, inner), torch.randn(rows, inner)
    with torch.no_grad():
        product_s = _seconds(lambda: x_MH @ w_HI)
        gated_s = _seconds(lambda: torch.nn.functional.silu(gate_MI) * up_MI)
    moved = 5 * rows * inner * FULL  # silu reads and writes one, the product reads two
    products, element_wise = 2 * rows * hidden * inner / product_s, moved / gated_s
    return Speed(
        "CPU", 0, (0, 0), products, element_wise * HALF / FULL, bus_bytes_per_s=1e9, launch_s=0
    )


def _seconds(work: Callable[[], object]) -> float:
    """Of one turn, at the mean of what TRIED_S hold: what disturbs it disturbs training too."""
    work()
    begin, turns = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < TRIED_S:
        work()
        turns += 1
    return spent / turns
