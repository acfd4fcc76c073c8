"""Setups of training runs on the CPU, small enough to take a step in a second."""

from dataclasses import replace
from pathlib import Path

import torch

from support.bases import settings_for
from support.devices import CPU
from trainer.dataset.packing import Block
from trainer.models.load import attach_adapter, load_base
from trainer.models.locate import locate_base
from trainer.planner.choose import Execution
from trainer.planner.memory_plan import MemoryPlan
from trainer.planner.schedule import choose_schedule
from trainer.runtime.device import Precision
from trainer.training.setup import TrainingSetup

STEPS = 3
LENGTH = 32


def noise_blocks(count: int) -> list[Block]:
    """Each of two documents of random tokens, of which the first has no loss."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.arange(LENGTH) % (LENGTH // 2)
    blocks = []
    for _ in range(count):
        ids = torch.randint(3000, (LENGTH,), generator=generator)
        labels = ids.masked_fill(positions == 0, -100)
        blocks.append(Block(ids.numpy(), labels.numpy(), positions.numpy()))
    return blocks


def tiny_setup(scratch: Path, *, micro_batch: int = 2, **changes: str) -> TrainingSetup:
    """The built-in model, four blocks a step, with our engine."""
    given = {"MAX_LENGTH": str(LENGTH), "MAX_STEPS": str(STEPS), "EFFECTIVE_BATCH_SIZE": "4"}
    settings = settings_for("builtin:tiny", scratch, **(given | changes))
    base, precision = locate_base(settings), Precision("fp32", "a CPU")
    return TrainingSetup(
        model=attach_adapter(load_base(base, settings, precision, CPU), settings),
        tokenizer=base.tokenizer(),
        blocks=noise_blocks(4 * STEPS),
        settings=settings,
        precision=precision,
        device=CPU,
        schedule=choose_schedule(settings, blocks=4 * STEPS, records=1, hidden=256),
        execution=Execution(micro_batch, MemoryPlan(base.shape().layers), "a test"),
    )


def on_stock_path(setup: TrainingSetup) -> TrainingSetup:
    """The same, computed by trl."""
    return replace(setup, execution=replace(setup.execution, plan=None))
