"""Llama-2-7B QLoRA on one GPU, on several, and on several that hold the base together: one table.

    python bench/scale.py                  two GPUs of this machine; minutes
    python bench/scale.py --workers 4
    python bench/scale.py --tiny           the built-in model, on a CPU through gloo: that it runs

Random weights, adapter r=8 on q and v, no dropout, fp16 with loss scaling, 8-bit AdamW; blocks of
512 tokens in micro-batches of 4, 16 blocks in an optimizer step, however many workers share it.
Base, workers, engine and sums are the job's own. Tokens/s are those of all workers together, and
nothing is computed twice for them. Memory is that of the worker with most: what the model takes
once it is loaded, and the peak of a step in which every layer is computed again. The base is
written first, to a temporary folder or, to be used again, to the one that BENCH_CHECKPOINT names:
13 GB.
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

BLOCKS, TOKENS, EFFECTIVE = 4, 512, 16
MIB = 2**20
LIMIT_S = 900  # of one row, loading included
COLUMNS = ("tokens/s", "times one", "MiB loaded", "of one", "peak MiB", "of one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        work(os.environ["SCALE_BASE"], parts=bool(os.environ["SCALE_PARTS"]))
        return
    import torch

    if not arguments.tiny and torch.cuda.device_count() < arguments.workers:
        sys.exit(
            f"{torch.cuda.device_count()} GPUs here, {arguments.workers} are needed; --tiny tries "
            "it on a CPU"
        )
    with tempfile.TemporaryDirectory() as folder:
        base = "builtin:tiny" if arguments.tiny else checkpoint(Path(folder))
        rows = {
            name: row(base, workers, parts)
            for name, workers, parts in (
                ("one", 1, False),
                (f"{arguments.workers}, the base whole on each", arguments.workers, False),
                (f"{arguments.workers}, the base in parts", arguments.workers, True),
            )
        }
    print(table(rows))


def checkpoint(folder: Path) -> str:
    import torch
    from models import llama_2_7b, write_checkpoint

    folder = Path(os.environ.get("BENCH_CHECKPOINT", folder))
    if not (folder / "config.json").exists():
        write_checkpoint(llama_2_7b(), folder, torch.float16)
    return str(folder)


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [f"| workers | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    one = rows["one"]
    for name, found in rows.items():
        cells = []
        for figure in ("tokens_per_s", "loaded", "peak"):
            value, base = found[figure], one[figure]
            shown = value if figure == "tokens_per_s" else value / MIB
            cells += [f"{shown:,.0f}", f"{value / base:.2f}"] if base else ["not known", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    loss = {f"{found['loss']:.6f}" for found in rows.values()}
    device, count = one["device"], EFFECTIVE * TOKENS
    lines.append(f"\n{device}; {count:,} tokens a step; loss of the last one {' and '.join(loss)}")
    return "\n".join(lines)


def row(base: str, workers: int, parts: bool) -> dict[str, Any]:
    """What the first of so many workers found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"SCALE_BASE": base, "SCALE_PARTS": "1" if parts else ""}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(workers)}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(workers)
    ]
    try:
        said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        sys.exit(f"{workers} workers ended with {[p.returncode for p in processes]}")
    print(said[0], end="", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(said[0])
    return found


def work(base: str, *, parts: bool) -> None:
    """One worker, from loading to its last step; the first one prints what all found."""
    from trainer.distributed.workers import Workers

    workers = Workers.from_environment(os.environ)
    with workers.session("bench/scale.py", minutes=10):
        found = measured(workers, base, parts)
        if workers.is_main:
            print(json.dumps(found), flush=True)


def measured(workers: Any, base: str, parts: bool) -> dict[str, Any]:
    import torch

    from trainer.engine.decoder import Engine
    from trainer.models import load
    from trainer.models.frozen_base import WholeBase
    from trainer.models.locate import locate_base
    from trainer.models.sharded_base import ShardedBase
    from trainer.planner.memory_plan import MemoryPlan
    from trainer.runtime.device import Precision, find_device
    from trainer.settings import Settings

    device = find_device()
    is_gpu = device.kind == "cuda"
    precision = Precision("fp16" if is_gpu else "fp32", "as bench/engine.py")
    given = {"QLORA_BASE_MODEL": base, "QLORA_LORA_DROPOUT": "0"}
    settings = Settings.read({}, given, trains=False)
    frozen = ShardedBase(workers) if parts else WholeBase()
    quantised = load.load_base(locate_base(settings), settings, precision, device, frozen)
    tuned = load.attach_adapter(quantised, settings).train()
    loaded = held_bytes()
    layers = len(tuned.get_base_model().model.layers)
    fast = MemoryPlan(layers, graph=is_gpu and not parts)
    lean = MemoryPlan(0, mlp_rows=BLOCKS * TOKENS, logit_rows=512)
    engine = Engine(tuned, dtype=precision.dtype, plan=fast, row_tokens=TOKENS, frozen=frozen)
    step = step_of(engine, workers, is_gpu)
    seconds, loss = timed(step, workers, 8 if is_gpu else 2)
    engine.change(lean)
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated() if is_gpu else 0
    # The most that any of them has.
    loaded, peak = (-value for value in workers.all_reduce_min(-loaded, -peak))
    return {
        "device": device.name,
        "tokens_per_s": EFFECTIVE * TOKENS / seconds,
        "loaded": loaded,
        "peak": peak,
        "loss": loss,
    }


def held_bytes() -> int:
    """What tensors take once all that was needed for a while is gone."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()
    tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and not t.is_meta]
    tensors = [t for t in tensors if type(t) is not torch.distributed.tensor.DTensor]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def step_of(engine: Any, workers: Any, is_gpu: bool) -> Callable[[], float]:
    """An optimizer step as the job takes it: a share of its micro-batches, and the sum of all."""
    import bitsandbytes
    import torch

    from trainer.distributed.data_parallel import GradientAccumulator
    from trainer.kernels.attention import Documents

    optimizer = bitsandbytes.optim.PagedAdamW8bit(engine.parameters, lr=2e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=is_gpu)
    gradients = GradientAccumulator(0, workers)
    chance = torch.Generator().manual_seed(0)
    batches = torch.randint(2000, (EFFECTIVE // BLOCKS, BLOCKS, TOKENS), generator=chance)
    batches = batches.to(engine.device)
    positions = torch.arange(TOKENS, device=engine.device).repeat(BLOCKS, 1)
    bounds = torch.arange(0, BLOCKS * TOKENS + 1, TOKENS, dtype=torch.int32, device=engine.device)
    where = Documents(bounds, TOKENS)
    steps = iter(range(10**6))

    def step() -> float:
        number = next(steps)
        for ids in batches[workers.rank :: workers.size]:
            gradients.seed_dropout(number)
            loss = engine.loss_sum(ids, ids, positions, where) / (EFFECTIVE * (TOKENS - 1))
            scaler.scale(loss).backward()
            gradients.add(engine.parameters, loss.detach())
        total, _ = gradients.all_reduce(engine.parameters, stop_requested=False)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def timed(step: Callable[[], float], workers: Any, steps: int) -> tuple[float, float]:
    """Median seconds of a step after two that warm up, and the loss of the last."""
    import torch

    seconds = []
    for number in range(steps + 2):
        workers.all_reduce_sum(0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        loss = step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number >= 2:
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)[len(seconds) // 2], loss


if __name__ == "__main__":
    main()
