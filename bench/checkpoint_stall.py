"""How long a checkpoint keeps training waiting: the adapter of a 7B model, q and v, r=8.

    python bench/checkpoint_stall.py FOLDER_OR_URI ...

Saves with the job's own code and prints a row for each place. `save` is what training waits for;
while the push runs behind it, a loop of small tensor operations stands for a training loop, and
`slowed` is the share of its speed that it loses. `lost` is both together, of the default 10 minutes
between two checkpoints.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parent.parent
SAVES = 10
BETWEEN_S = 600
LAYERS, WIDTH, RANK = 32, 4096, 8


def training_state() -> Any:
    """What `save_state` reads of a trainer: 4,194,304 parameters after one 8-bit Adam step."""
    import torch
    from bitsandbytes.optim import PagedAdamW8bit
    from transformers import TrainerState, get_cosine_schedule_with_warmup

    from trainer.planner.choose import Execution

    model = torch.nn.Module()
    for layer in range(LAYERS):
        for target in ("q_proj", "v_proj"):
            for name, shape in (("lora_A", (RANK, WIDTH)), ("lora_B", (WIDTH, RANK))):
                weight = torch.nn.Parameter(torch.randn(shape))
                weight.grad = torch.randn(shape)
                model.register_parameter(f"{layer}_{target}_{name}", weight)
    optimizer = PagedAdamW8bit(model.parameters())
    optimizer.step()
    return SimpleNamespace(
        model=model,
        optimizer=optimizer,
        lr_scheduler=get_cosine_schedule_with_warmup(optimizer, 10, 1000),
        accelerator=SimpleNamespace(scaler=None),
        state=TrainerState(),
        execution=lambda: Execution(1, None, ""),
    )


def operations_per_s(seconds: float, until: Any = lambda: False) -> tuple[int, float]:
    """Small matrix products in `seconds`, or until `until`, and the seconds they took."""
    import torch

    matrix = torch.randn(64, 64)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds and not until():
        matrix @ matrix
        done += 1
    return done, time.perf_counter() - started


def measure(uri: str, trainer: Any) -> str:
    from trainer.runs.checkpoints import Checkpoints
    from trainer.storage import open_store
    from trainer.training.resumable_trainer import ResumableTrainer

    save_s, push_s, slowed = [], [], []
    done, seconds = operations_per_s(3)
    undisturbed = done / seconds
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(uri, retry_minutes=1)
        checkpoints = Checkpoints(Path(scratch), store, "bench/checkpoints", "{}", "bench")
        for step in range(1, SAVES + 1):
            started = time.perf_counter()
            path = checkpoints.save(step, lambda f: ResumableTrainer.save_state(trainer, f))
            save_s.append(time.perf_counter() - started)
            size_mib = sum(file.stat().st_size for file in path.iterdir()) / 2**20
            pushed = threading.Thread(target=checkpoints.finish)
            pushed.start()
            done, seconds = operations_per_s(600, lambda p=pushed: not p.is_alive())
            push_s.append(seconds)
            slowed.append(max(0.0, 1 - done / seconds / undisturbed))
            checkpoints.raise_if_push_failed()
        checkpoints.discard()
    save, push, slow = (statistics.median(values) for values in (save_s, push_s, slowed))
    lost = (save + push * slow) / BETWEEN_S
    scheme = uri.partition("://")[0] if "://" in uri else "folder"
    return (
        f"| {scheme} | {size_mib:.1f} | {save:.3f} | {max(save_s):.3f} | {save / BETWEEN_S:.3%} "
        f"| {push:.2f} | {slow:.0%} | {lost:.3%} |"
    )


def main() -> None:
    sys.path.insert(0, str(ROOT))
    trainer = training_state()
    columns = "place", "MiB", "save s", "worst", "of 10 min", "push s", "slowed", "lost of 10 min"
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for uri in sys.argv[1:]:
        print(measure(uri, trainer), flush=True)


if __name__ == "__main__":
    main()
