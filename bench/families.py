"""Families at real sizes with random weights, on the GPU that is here: ours beside plain
transformers, and memory beside what `plan` says.

    python bench/families.py                       all of `MODELS`, each in a process of its own
    python bench/families.py "Phi-4 14B"           one of them
    python bench/families.py --seconds 60          each is given up after so many seconds
    python bench/families.py --here "Phi-4 14B" …  all of them in this process, which starts once
    python bench/families.py --write DIR NAME …    checkpoints in 16 bits, which Unsloth reads
    python bench/families.py --here --only unsloth --read DIR NAME …    where it is installed

All linear layers, r=8, no dropout, 8-bit AdamW, an optimizer step after each micro-batch of 4 x 512
tokens. "ours" is what the job would choose on this GPU in bf16, "recomputed" computes every layer
again, "stock" is transformers with peft, bitsandbytes, activation checkpointing and trl's loss, as
the job trains what the engine does not know. "T4" is what
`plan` chooses for a T4, in fp16, with the attention kernel of a T4 and 14.7 GiB: what was allocated
at the peak, and what was predicted. "held" is the base alone. "unsloth" computes nothing again, as
"ours" does; it trains what was written by `--write`, and is not run unless it is asked for.
"""

import argparse
import contextlib
import fcntl
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench"), str(ROOT / "scripts")]

BLOCKS, TOKENS, STEPS = 4, 512, 5
T4_GIB, GIB = 14.7, 2**30
MORE: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "Qwen 3.5 4B": ("qwen3_5_text", (2560, 9216, 32, 16, 4, 256, 248320),
        {"tie_word_embeddings": True, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
         "linear_key_head_dim": 128, "linear_value_head_dim": 128}),
    "Qwen 3 30B-A3B, 12 of 48 layers": ("qwen3_moe", (2048, 6144, 12, 32, 4, 128, 151936),
        {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}),
    "Granite 3.3 8B": ("granite", (4096, 12800, 40, 32, 8, 128, 49159), {
        "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
        "attention_multiplier": 0.0078125, "logits_scaling": 16.0}),
    "Ministral 3 3B": ("ministral3", (3072, 9216, 26, 32, 8, 128, 131072),
        {"tie_word_embeddings": True}),
    "OLMo 2 7B": ("olmo2", (4096, 11008, 32, 32, 32, 128, 100352), {}),
    "OLMo 3 7B": ("olmo3", (4096, 11008, 32, 32, 32, 128, 100278), {"sliding_window": 4096}),
    "GLM-4 9B": ("glm4", (4096, 13696, 40, 32, 2, 128, 151552), {}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="*")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--only", action="append", choices=[*WAYS, "unsloth"])
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--write", type=Path, metavar="DIR")
    parser.add_argument("--read", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    names, ways = arguments.model or [*models()], arguments.only or list(WAYS)
    if arguments.write:
        for name in names:
            write(name, arguments.write)
    elif "unsloth" in ways:
        import unsloth  # noqa: F401  # before transformers

        for name in names:
            print(json.dumps(unsloth_peer(name, arguments.read)), flush=True)
    elif arguments.here:
        for name in names:
            for row in measure(name, ways):
                print(json.dumps(row), flush=True)
            free()
    else:
        apart(names, ways, arguments.seconds)


def apart(names: list[str], ways: list[str], seconds: int) -> None:
    """Each in a process of its own."""
    only = [part for way in ways for part in ("--only", way)]
    for name in names:
        command = [sys.executable, __file__, "--here", name, *only]
        try:
            subprocess.run(command, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            print(json.dumps({"model": name, "error": "took too long"}), flush=True)


def models() -> dict[str, tuple[str, tuple[int, ...], dict[str, Any]]]:
    from plan_table import MODELS

    return MODELS | MORE


def measure(name: str, ways: list[str]) -> Iterator[dict[str, Any]]:
    """A row for what is held, and one for each way to train."""
    import torch
    from models import random_model, with_adapter

    model, dtype = None, None
    for way in ways:
        wanted = torch.float16 if way == "T4" else torch.bfloat16
        if wanted is not dtype:
            model = None
            free()
            before = torch.cuda.memory_allocated()
            model, dtype = random_model(config_of(name), wanted), wanted
            held = round((torch.cuda.memory_allocated() - before) / GIB, 2)
            yield {"model": name, "way": "held", "dtype": str(dtype), "gib": held}
            model = with_adapter(model, None)
        row = {"model": name, "way": way}
        try:
            yield row | WAYS[way](name, model, dtype)
        except Exception as error:
            yield row | {"error": f"{type(error).__name__}: {error}"[:300]}
        free()


def config_of(name: str) -> Any:
    from plan_table import SIZES
    from transformers import AutoConfig

    kind, sizes, more = models()[name]
    usual = {"max_position_embeddings": 32768} | dict(zip(SIZES, sizes, strict=True))
    config = AutoConfig.for_model(kind, **(usual | more))
    config._attn_implementation = "eager" if kind == "gpt_oss" else "sdpa"  # it has sinks
    config.use_cache = False
    return config


def planned(name: str, device: Any, precision: str) -> Any:
    """What the job would choose on `device`; for micro-batches of BLOCKS, but not on a T4."""
    from trainer.engine.support import why_stock
    from trainer.models import base_model
    from trainer.models.locate import locate_base
    from trainer.planner.choose import Workload, choose
    from trainer.planner.gpus import multiplies_unasked
    from trainer.runtime.device import Precision
    from trainer.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        config_of(name).save_pretrained(folder)
        given = {"base_model": folder, "target_modules": "all-linear"}
        settings = Settings.read(given, {}, trains=False)
        base = locate_base(settings)
        shape, trainable = base.shape(precision), base_model.trainable_parameters(base, settings)
        reason = why_stock(settings, base.config, Precision(precision, ""), device)
        is_t4 = "T4" in device.name
        return choose(Workload(
            device, shape, trainable=trainable, step_blocks=4 * BLOCKS, block_tokens=TOKENS,
            micro_batch=None if is_t4 else BLOCKS, host_bytes=64 * GIB,
            unasked=multiplies_unasked(device.capability, precision), engine=reason is None,
            adapter_width=trainable // settings.lora_r,
        ))  # fmt: skip


def ours(name: str, model: Any, dtype: Any) -> dict[str, Any]:
    from trainer.runtime.device import find_device

    return through_engine(model, dtype, planned(name, find_device(), "bf16"))


def recomputed(name: str, model: Any, dtype: Any) -> dict[str, Any]:
    from trainer.planner.memory_plan import MemoryPlan
    from trainer.runtime.device import find_device

    execution = planned(name, find_device(), "bf16")
    if execution.plan is not None:
        execution = replace(execution, plan=MemoryPlan(0), peak_bytes=0)
    return through_engine(model, dtype, execution)


def as_on_a_t4(name: str, model: Any, dtype: Any) -> dict[str, Any]:
    import torch

    from trainer.errors import DoesNotFitError
    from trainer.planner.gpus import GPUS
    from trainer.runtime.device import Device

    speed = GPUS["t4"]
    device = Device("cuda", speed.name, speed.capability, int(speed.memory_gib * GIB))
    try:
        execution = planned(name, device, "fp16")
    except DoesNotFitError as error:
        return {"note": str(error)}
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(T4_GIB * GIB / total)
    if execution.plan is None:
        return stock(name, model, dtype, execution.blocks) | predicted(execution)
    return through_engine(model, dtype, execution)


def through_engine(model: Any, dtype: Any, execution: Any) -> dict[str, Any]:
    import torch

    from trainer.engine.decoder import Engine
    from trainer.kernels.attention import Documents

    if execution.plan is None:
        return {"note": "not one of the engine's families"}
    engine = Engine(model, dtype=dtype, plan=execution.plan, row_tokens=TOKENS)
    blocks = execution.blocks
    ids, positions = inputs(model, blocks)
    bounds = torch.arange(0, blocks * TOKENS + 1, TOKENS, dtype=torch.int32, device="cuda")
    where = Documents(bounds, TOKENS)
    count = blocks * (TOKENS - 1)
    row = timed(
        engine.parameters,
        lambda: engine.loss_sum(ids, ids, positions, where) / count,
        blocks * TOKENS,
        scales=dtype == torch.float16,
    )
    engine.close()
    plan = execution.plan
    row["plan"] = f"{plan.stored_layers} stored, {plan.unpacked_layers} unpacked, {blocks} blocks"
    return row | (predicted(execution) if execution.peak_bytes else {})


def predicted(execution: Any) -> dict[str, Any]:
    gib, rate = round(execution.peak_bytes / GIB, 2), round(execution.tokens_per_s)
    return {"predicted_gib": gib, "predicted_tokens_per_s": rate}


def stock(name: str, model: Any, dtype: Any, blocks: int = BLOCKS) -> dict[str, Any]:
    import torch
    from trl.trainer.utils import add_fused_lm_head

    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    base = model.get_base_model()
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))  # as SFTTrainer does
    ids, positions = inputs(model, blocks)
    trained = [p for p in model.parameters() if p.requires_grad]

    def loss_of() -> Any:
        with torch.autocast("cuda", dtype=dtype):
            return model(input_ids=ids, position_ids=positions, labels=ids, fused_lm_head=True).loss

    row = timed(trained, loss_of, blocks * TOKENS, scales=dtype == torch.float16)
    del base.forward  # its own again
    model.gradient_checkpointing_disable()
    return row | {"blocks": blocks}


WAYS: dict[str, Callable[[str, Any, Any], dict[str, Any]]] = {
    "ours": ours,
    "recomputed": recomputed,
    "stock": stock,
    "T4": as_on_a_t4,
}


def write(name: str, folder: Path) -> None:
    """A checkpoint of random weights in bf16, with the built-in model's tokenizer."""
    import shutil

    import torch
    from models import BUILTIN, SPREAD
    from transformers import AutoModelForCausalLM

    config, to = config_of(name), folder / name
    to.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / file, to / file)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device="cpu")
    noise = torch.empty(2**24, dtype=torch.bfloat16).normal_(0, SPREAD)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(1)
            continue
        flat = parameter.data.view(-1)
        for first in range(0, len(flat), len(noise)):
            part = flat[first : first + len(noise)]
            part.copy_(noise[: len(part)])
    model.tie_weights()
    model.save_pretrained(to)


def unsloth_peer(name: str, folder: Path) -> dict[str, Any]:
    import torch
    from unsloth import FastLanguageModel

    row = {"model": name, "way": "unsloth"}
    try:
        model, _ = FastLanguageModel.from_pretrained(
            str(folder / name), max_seq_length=TOKENS, dtype=torch.bfloat16, load_in_4bit=True
        )
        linear = {
            n.rpartition(".")[2] for n, m in model.named_modules() if hasattr(m, "in_features")
        }
        model = FastLanguageModel.get_peft_model(
            model,
            r=8,
            lora_alpha=16,
            lora_dropout=0,
            target_modules=sorted(linear - {"lm_head"}),
            use_gradient_checkpointing=False,
        ).train()
        ids, _ = inputs(model, BLOCKS)
        trained = [p for p in model.parameters() if p.requires_grad]

        def loss_of() -> Any:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                return model(input_ids=ids, labels=ids).loss

        return row | timed(trained, loss_of, BLOCKS * TOKENS, scales=False)
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        free()


def inputs(model: Any, blocks: int) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    words = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(words, (blocks, TOKENS), device="cuda")
    return ids, torch.arange(TOKENS, device="cuda").repeat(blocks, 1)


def timed(
    parameters: list[Any], loss_of: Callable[[], Any], tokens: int, *, scales: bool
) -> dict[str, Any]:
    """The median of some steps after two that warm up."""
    import time

    import bitsandbytes
    import torch

    optimizer = bitsandbytes.optim.PagedAdamW8bit(parameters, lr=1e-5)
    scaler = torch.amp.GradScaler("cuda", enabled=scales)
    torch.cuda.reset_peak_memory_stats()

    def step() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        loss = loss_of()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        losses.append(float(loss.detach()))
        return time.perf_counter() - began

    losses: list[float] = []
    for _ in range(2):
        step()
    with alone():
        seconds = [step() for _ in range(STEPS)]
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "tokens_per_s": round(tokens / median),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "loss": round(losses[-1], 3),
    }


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other process that shares the file BENCH_LOCK is timed meanwhile; others may warm up."""
    with Path(os.environ.get("BENCH_LOCK", os.devnull)).open("a", encoding="utf-8") as file:
        if "BENCH_LOCK" in os.environ:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
