"""Tokens/s and peak memory of Llama-2-7B QLoRA on the GPU that is here: ours beside the peers.

    python bench/engine.py                 the table: 1, 4 and 16 blocks of 512 tokens
    python bench/engine.py --long          one block of 8,192, 32,768 and 65,536 tokens, 14.7 GiB
    python bench/engine.py --long --t4     the same with the attention kernel of a T4 only
    python bench/engine.py --only unsloth  one variant alone
    python bench/engine.py --all-linear    an adapter r=16 on every linear layer
    python bench/engine.py --llama-3       Llama-3-8B, whose head has four times the words

Random weights, adapter r=8 on q and v, no dropout, fp16 with loss scaling, 8-bit AdamW, an
optimizer step after each micro-batch. Each variant runs in a process of its own. Unsloth takes part
where it can be imported; its checkpoint is written first, to a temporary folder or, to be used
again, to the one that BENCH_CHECKPOINT names. The last row is the time of the matrix products
alone, one after the other through cuBLAS: nothing that does not compute layers twice can be faster.
"""

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

SHORT = [(1, 512), (4, 512), (16, 512)]
LONG = [(1, 8192), (1, 32768), (1, 65536)]
T4_GIB = 14.7
GIB = 2**30
PEER_LONGEST = 32768  # what Unsloth trains in 14.7 GiB with and without flash attention
TARGETS = ["q_proj", "v_proj"]
ALL_LINEAR = [*TARGETS, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS = {
    "common": "common recipe: float32 norms and ends, every layer recomputed",
    "stock": "stock path, every layer recomputed",
    "fast": "ours, nothing recomputed",
    "unpacked": "ours, nothing recomputed, NF4 weights also held unpacked",
    "lean": "ours, everything recomputed, inputs and ends in host memory",
    "unsloth": "Unsloth, its checkpointing",
    "unsloth-kept": "Unsloth, no checkpointing",
    "limit": "matrix products alone",
}


@dataclass(frozen=True)
class Task:
    """What is trained: the base, and where its adapter is."""

    llama_3: bool
    all_linear: bool

    @property
    def targets(self) -> list[str]:
        return ALL_LINEAR if self.all_linear else TARGETS

    @property
    def rank(self) -> int:
        return 16 if self.all_linear else 8

    def config(self) -> Any:
        from models import llama_2_7b, llama_3_8b

        return llama_3_8b() if self.llama_3 else llama_2_7b()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--t4", action="store_true")
    parser.add_argument("--all-linear", action="store_true")
    parser.add_argument("--llama-3", action="store_true")
    parser.add_argument("--only", choices=VARIANTS, action="append")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shapes = LONG if arguments.long else SHORT
    if arguments.variant:
        task = Task(arguments.llama_3, arguments.all_linear)
        for row in measure(arguments.variant, task, shapes, arguments.long, arguments.t4):
            print(json.dumps(row), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        table(arguments, shapes, Path(folder))


def table(arguments: argparse.Namespace, shapes: list[tuple[int, int]], folder: Path) -> None:
    short = ["common", "stock", "unpacked", "fast", "lean"]
    chosen = arguments.only or (["lean"] if arguments.long else short)
    if arguments.only is None and importlib.util.find_spec("unsloth"):
        chosen += ["unsloth"] if arguments.long else ["unsloth", "unsloth-kept"]
    if arguments.only is None and not arguments.long:
        chosen.append("limit")
    lines = [
        "| variant | " + " | ".join(f"{b} x {t}" for b, t in shapes) + " |",
        "|---" * (len(shapes) + 1) + "|",
    ]
    for variant in chosen:
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"BENCH_CHECKPOINT": os.environ.get("BENCH_CHECKPOINT", str(folder))},
        )
        rows = []
        for line in process.stdout or ():
            if line.startswith("{"):
                print(line, end="", file=sys.stderr, flush=True)
                rows.append(json.loads(line))
        process.wait()
        cells = {(r["blocks"], r["tokens"]): r for r in rows}
        lines.append(
            f"| {VARIANTS[variant]} | " + " | ".join(_cell(cells.get(s)) for s in shapes) + " |"
        )
        print(lines[-1], flush=True)
    print("\ntokens/s · peak GiB allocated (reserved)\n" + "\n".join(lines))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not run"
    if "error" in row:
        return str(row["error"])[:60]
    return f"{row['tokens_per_s']:,} · {row['peak_gib']:.2f} ({row['reserved_gib']:.1f})"


def measure(
    variant: str, task: Task, shapes: list[tuple[int, int]], capped: bool, t4: bool
) -> Iterator[dict[str, Any]]:
    """One row for each shape: the median step of several, after those that warm up."""
    prepare, longest = PREPARE[variant.split("-")[0]], max(t for _, t in shapes)
    if variant.startswith("unsloth"):
        import unsloth  # noqa: F401  # before transformers
    import torch

    if t4:
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    step_of = prepare(variant, longest, task)
    if capped:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(T4_GIB * GIB / total)
    for blocks, tokens in shapes:
        if variant.startswith("unsloth") and tokens > PEER_LONGEST:
            continue
        row = {"variant": variant, "blocks": blocks, "tokens": tokens}
        try:
            yield row | timed(step_of(blocks, tokens), blocks * tokens, 2 if capped else 8)
        except Exception as error:
            yield row | {"error": f"{type(error).__name__}: {error}"}
        gc.collect()
        torch.cuda.empty_cache()


def timed(step: Callable[[], Any], tokens: int, steps: int) -> dict[str, Any]:
    import torch

    torch.cuda.reset_peak_memory_stats()
    seconds = []
    # A step of a long block takes up to a minute; the first one pins its host memory too.
    steps, warm_up = 1 if tokens > 32768 else steps, 1 if tokens > 8192 else 2
    for number in range(steps + warm_up):
        torch.cuda.synchronize()
        started = time.perf_counter()
        loss = step()
        torch.cuda.synchronize()
        if number >= warm_up:
            seconds.append(time.perf_counter() - started)
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "ms": round(median * 1e3, 1),
        "tokens_per_s": round(tokens / median),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 3),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "loss": round(float(loss.detach()), 4),
    }


def with_optimizer(parameters: list[Any], loss_of: Callable[[], Any]) -> Callable[[], Any]:
    import bitsandbytes
    import torch

    optimizer = bitsandbytes.optim.PagedAdamW8bit(parameters, lr=2e-4)
    scaler = torch.amp.GradScaler("cuda")

    def step() -> Any:
        loss = loss_of()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def inputs(blocks: int, tokens: int) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    ids = torch.randint(32000, (blocks, tokens), device="cuda")
    return ids, torch.arange(tokens, device="cuda").repeat(blocks, 1)


def ours(variant: str, longest: int, task: Task) -> Any:
    import torch
    from models import random_model, with_adapter

    from trainer.engine.decoder import Engine
    from trainer.kernels.attention import Documents
    from trainer.planner.choose import LONG as LONG_BLOCK
    from trainer.planner.memory_plan import MemoryPlan

    base = random_model(task.config(), torch.float16)
    model = with_adapter(base, task.targets, rank=task.rank)
    engine: list[Engine] = []

    def step_of(blocks: int, tokens: int) -> Callable[[], Any]:
        for former in engine:
            former.close()
        plan = MemoryPlan(32, graph=True, unpacked_layers=32 if variant == "unpacked" else 0)
        if variant == "lean":
            plan = MemoryPlan(
                0, tokens > LONG_BLOCK, True, mlp_rows=2048, logit_rows=512, offload_embeddings=True
            )
        engine[:] = [Engine(model, dtype=torch.float16, plan=plan, row_tokens=tokens)]
        ids, positions = inputs(blocks, tokens)
        bounds = torch.arange(0, blocks * tokens + 1, tokens, dtype=torch.int32, device="cuda")
        where = Documents(bounds, tokens)
        return with_optimizer(
            engine[0].parameters,
            lambda: engine[0].loss_sum(ids, ids, positions, where) / (blocks * (tokens - 1)),
        )

    return step_of


def products(variant: str, longest: int, task: Task) -> Any:
    """Every product of a forward and a backward pass over frozen weights, with nothing between.

    Four sets of weights take turns, so that no product finds its matrix in the cache.
    """
    import torch

    config = task.config()
    wide, deep = config.intermediate_size, config.hidden_size
    kv = deep * config.num_key_value_heads // config.num_attention_heads
    shapes = [(deep, deep)] * 2 + [(kv, deep)] * 2 + [(wide, deep)] * 2 + [(deep, wide)]

    def random(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float16, device="cuda").normal_(0, 0.02)

    sets = [[random(*shape) for shape in shapes] for _ in range(4)]
    head = random(config.vocab_size, deep)

    def step_of(blocks: int, tokens: int) -> Callable[[], Any]:
        given = {width: random(blocks * tokens, width) for width in {wide, deep, kv}}

        def step() -> Any:
            for number in range(config.num_hidden_layers):
                for weight in sets[number % len(sets)]:
                    given[weight.shape[1]] @ weight.t()
            for part in given[deep].split(2048):
                (part @ head.t()) @ head
            for number in range(config.num_hidden_layers):
                for weight in sets[number % len(sets)]:
                    given[weight.shape[0]] @ weight
            return torch.zeros(())

        return step

    return step_of


def stock(variant: str, longest: int, task: Task) -> Any:
    import torch
    from models import random_model, with_adapter
    from peft import prepare_model_for_kbit_training

    base = random_model(task.config(), torch.float16)
    if variant == "common":
        base.is_loaded_in_4bit = base.is_quantized = True
        base = prepare_model_for_kbit_training(
            base, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    model = with_adapter(base, task.targets, rank=task.rank)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return _through_transformers(model)


def unsloth_peer(variant: str, longest: int, task: Task) -> Any:
    import torch
    from models import write_checkpoint
    from unsloth import FastLanguageModel

    folder = Path(os.environ["BENCH_CHECKPOINT"])
    if not (folder / "config.json").exists():
        write_checkpoint(task.config(), folder, torch.float16)
    model, _ = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=longest, dtype=torch.float16, load_in_4bit=True
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=task.rank,
        lora_alpha=2 * task.rank,
        lora_dropout=0,
        target_modules=task.targets,
        use_gradient_checkpointing="unsloth" if variant == "unsloth" else False,
    )
    return _through_transformers(model.train())


def _through_transformers(model: Any) -> Any:
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]

    def step_of(blocks: int, tokens: int) -> Callable[[], Any]:
        ids, _ = inputs(blocks, tokens)

        def loss_of() -> Any:
            with torch.autocast("cuda", dtype=torch.float16):
                return model(input_ids=ids, labels=ids).loss

        return with_optimizer(trained, loss_of)

    return step_of


PREPARE: dict[str, Any] = {
    "common": stock,
    "stock": stock,
    "fast": ours,
    "unpacked": ours,
    "lean": ours,
    "limit": products,
    "unsloth": unsloth_peer,
}

if __name__ == "__main__":
    main()
