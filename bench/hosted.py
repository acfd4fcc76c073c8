"""Bases larger than a 16 GB GPU, layers in host memory, beside the same ones resident: one GPU.

    python bench/hosted.py                 every case; half an hour, 140 GiB of GPU memory
    python bench/hosted.py --only 8b-512   one of them
    python bench/hosted.py --tiny          a small model, on a CPU too: that it runs
    python bench/hosted.py --on-disk FOLDER --only 14b-qv   every layer in host memory, and then in
                                           a file there, of which the kernel is to keep nothing

Random weights, fp16 with loss scaling, 8-bit AdamW, no dropout, neither flash nor cuDNN attention,
16 blocks of 512 tokens in an optimizer step unless a case says otherwise. In one process the model
is first resident without a cap and then held to 14.7 GiB (an 8B to 2.6) by the plan that
the planner chooses, under which it was resident too; both begin with the same adapter and have to
end with the same bytes. The cap is on what torch's allocator takes from the device, fragments and
all; what does not fit goes on by the next leaner plan, as a run does, and says so. Memory is what
it gave out, what it took, and what the device had in use, CUDA's own share in it. Speed and peak
stand beside their predictions. Host memory: 60 GiB for a 70B.
"""

import argparse
import ctypes
import functools
import gc
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

T4_GIB, GIB = 14.7, 2**30
HOST_BYTES = 100 * GIB
RESIDENT, CAPPED, ON_DISK = "resident", "under the cap", "under the cap, on disk"
QV = ["q_proj", "v_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA_3 = {"vocab_size": 128256, "num_key_value_heads": 8}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "70b": ("llama", LLAMA_3 | {"hidden_size": 8192, "intermediate_size": 28672,
            "num_hidden_layers": 80, "num_attention_heads": 64}),
    "32b": ("qwen2", {"vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
            "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8}),
    "14b": ("qwen3", {"vocab_size": 151936, "hidden_size": 5120, "intermediate_size": 17408,
            "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8,
            "head_dim": 128}),
    "8b": ("llama", LLAMA_3 | {"hidden_size": 4096, "intermediate_size": 14336,
           "num_hidden_layers": 32, "num_attention_heads": 32}),
    "tiny": ("llama", {"vocab_size": 3072, "hidden_size": 256, "intermediate_size": 512,
             "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A shape and its adapter; `leanest` is by the leanest plan there is."""

    shape: str
    targets: list[str]
    rank: int
    blocks: int = 16
    tokens: int = 512
    leanest: bool = False
    steps: int = 3  # the first of them is not timed
    cap_gib: float = T4_GIB


CASES = {
    "70b-qv": Case("70b", QV, 8),
    "70b-all": Case("70b", ALL, 16, steps=2),
    "32b-qv": Case("32b", QV, 8),
    "32b-all": Case("32b", ALL, 16),
    "14b-qv": Case("14b", QV, 8, steps=6),
    "14b-all": Case("14b", ALL, 16, steps=6),
    "8b-512": Case("8b", QV, 8, blocks=1, leanest=True, steps=6, cap_gib=2.6),
    "8b-2048": Case("8b", QV, 8, blocks=1, tokens=2048, leanest=True, steps=6, cap_gib=2.6),
    "tiny": Case("tiny", ALL, 16, blocks=4, tokens=64, leanest=True),
}
COLUMNS = (
    "case", "base", "plan", "hosted", "tokens/s", "of resident", "predicted",
    "peak GiB", "predicted", "reserved", "device", "same bytes",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one-plan", action="store_true", help="resident by the same plan alone")
    parser.add_argument("--on-disk", type=Path, metavar="FOLDER")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = CASES[arguments.case]
        if arguments.on_disk:  # whose steps are long
            case = replace(case, steps=3)
        for row in measure(case, arguments.on_disk, one_plan=arguments.one_plan):
            print(json.dumps({"case": arguments.case} | row), flush=True)
        return
    chosen = ["tiny"] if arguments.tiny else arguments.only or [n for n in CASES if n != "tiny"]
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for name in chosen:
        command = [sys.executable, __file__, "--case", name]
        command += ["--one-plan"] * arguments.one_plan
        command += ["--on-disk", arguments.on_disk] if arguments.on_disk else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout or ():
            if line.startswith("{"):
                print(line, end="", file=sys.stderr, flush=True)
                print(_line(json.loads(line)), flush=True)
        if process.wait():
            print(f"| {name} | ended with {process.returncode} |", flush=True)


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["case"], row["base"], row["plan"], row["hosted"], f"{row['tokens_per_s']:,.0f}",
        f"{row['of_resident']:.1%}", f"{row['predicted_tokens_per_s']:,.0f}",
        f"{row['peak_gib']:.2f}", f"{row['predicted_gib']:.2f}", f"{row['reserved_gib']:.2f}",
        f"{row['device_gib']:.2f}", row["same"],
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def measure(case: Case, folder: Path | None, *, one_plan: bool) -> Iterator[dict[str, Any]]:
    """Rows of the base resident without the cap, and one under it; another with every layer in a
    file where there is a `folder`."""
    import torch

    from trainer.planner.memory_plan import leaner_plan

    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    is_gpu = torch.cuda.is_available()
    began = time.perf_counter()
    base, sizes, weights = made(case, "cuda" if is_gpu else "cpu")
    name = torch.cuda.get_device_name() if is_gpu else "CPU"
    plans = planned(case, sizes, name, folder)
    say(f"{case.shape}: built in {time.perf_counter() - began:.1f} s; {plans}")
    hosted_micro, hosted = plans["hosted"]
    own_micro, own = plans["own"]
    ways = [(RESIDENT, hosted_micro, replace(hosted, hosted_layers=0))]
    if (own_micro, own) != ways[0][1:] and not one_plan:
        ways.append((f"{RESIDENT}, its own plan", own_micro, own))
    ways.append((CAPPED, hosted_micro, hosted))
    if folder is not None:
        ways.append((ON_DISK, hosted_micro, replace(hosted, on_disk=True)))
    rate, frozen, ended = 0.0, None, None
    for way, micro, plan in ways:
        if way == CAPPED:
            frozen = moved_to_host(base, weights, plan.hosted_layers)
        elif folder is not None and way == ON_DISK:
            frozen = moved_to_disk(frozen, base, weights, folder)
        cap_gib, asked = case.cap_gib if way in (CAPPED, ON_DISK) else None, plan
        ran = None
        while ran is None and plan is not None:
            try:
                ran = trained(case, base, frozen, micro, plan, cap_gib)
            except torch.OutOfMemoryError as error:
                say(f"{way}, {plan}: {error}")
                plan = leaner_plan(plan) if cap_gib else None
        if ran is None:
            continue
        found, adapter = ran
        rate, ended = rate or found["tokens_per_s"], adapter if ended is None else ended
        same = all(torch.equal(a, b) for a, b in zip(adapter, ended, strict=True))
        is_other = plan != asked or way.startswith(f"{RESIDENT},")
        yield (
            {"base": way}
            | found
            | predicted(case, sizes, name, micro, plan, folder)
            | {
                "plan": _words(micro, plan) + (f", {cap_gib} GiB" if cap_gib else ""),
                "hosted": f"{plan.hosted_layers} of {sizes.layers}" + " on disk" * plan.on_disk,
                "of_resident": found["tokens_per_s"] / rate,
                "same": "no, another plan" if is_other else same,
            }
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _words(micro: int, plan: Any) -> str:
    """As the table holds it."""
    words = [f"{micro} blocks", f"{plan.stored_layers} stored"]
    words += ["offload"] * plan.offload + ["ends on the host"] * plan.offload_embeddings
    return ", ".join(words)


def made(case: Case, device: str) -> tuple[Any, Any, dict[str, tuple[int, ...]]]:
    """The base in NF4 on the device, its sizes, and the shapes of its quantised weights."""
    import torch
    from models import random_model
    from transformers import AutoConfig

    from trainer.models.base_model import Base

    family, changes = SHAPES[case.shape]
    config = AutoConfig.for_model(
        family, max_position_embeddings=8192, tie_word_embeddings=False, use_cache=False,
        attn_implementation="sdpa", **changes,
    )  # fmt: skip
    base = random_model(config, torch.float16 if device == "cuda" else torch.float32, device=device)
    with tempfile.TemporaryDirectory() as folder:
        config.architectures = [type(base).__name__]
        config.save_pretrained(folder)
        sizes = Base(Path(folder), case.shape, "none").shape()
    weights = {
        f"{name}.weight": tuple(module.weight.quant_state.shape)
        for name, module in base.named_modules()
        if hasattr(getattr(module, "weight", None), "quant_state")
    }
    return base, sizes, weights


def trainable(case: Case, sizes: Any) -> int:
    widths = {
        "q_proj": (sizes.hidden, sizes.q), "k_proj": (sizes.hidden, sizes.kv),
        "v_proj": (sizes.hidden, sizes.kv), "o_proj": (sizes.q, sizes.hidden),
        "gate_proj": (sizes.hidden, sizes.intermediate),
        "up_proj": (sizes.hidden, sizes.intermediate),
        "down_proj": (sizes.intermediate, sizes.hidden),
    }  # fmt: skip
    return int(case.rank * sizes.layers * sum(sum(widths[name]) for name in case.targets))


def planned(
    case: Case, sizes: Any, name: str, folder: Path | None = None
) -> dict[str, tuple[int, Any]]:
    """Blocks of a micro-batch and plan, under the cap and without it."""
    from trainer.planner.choose import Workload, choose
    from trainer.planner.memory_plan import MemoryPlan
    from trainer.runtime.device import Device

    if case.leanest:
        lean = MemoryPlan(
            0, mlp_rows=1024, logit_rows=256, offload=name != "CPU",
            offload_embeddings=name != "CPU", hosted_layers=sizes.layers,
        )  # fmt: skip
        return {"hosted": (case.blocks, lean), "own": (case.blocks, lean)}
    found = {}
    for way, gib in (("hosted", case.cap_gib), ("own", 139.0)):
        given = Workload(
            Device("cuda", name, (7, 5), int(gib * GIB)), sizes, trainable(case, sizes),
            step_blocks=case.blocks, block_tokens=case.tokens, host_bytes=HOST_BYTES,
            adapter_width=trainable(case, sizes) // case.rank,
        )  # fmt: skip
        if folder and way == "hosted":
            given = replace(
                given, hosted_layers=sizes.layers, on_disk=True, disk_bytes=HOST_BYTES,
                disk_bytes_per_s=disk_of(folder),
            )  # fmt: skip
        chosen = choose(given)
        assert chosen.plan is not None
        found[way] = chosen.blocks, replace(chosen.plan, on_disk=False)
    return found


@functools.cache
def disk_of(folder: Path | None) -> int:
    """Bytes/s, as a run measures it; 0 where there is none."""
    from trainer.planner.bus_speed import in_steps
    from trainer.planner.disk_speed import disk_bytes_per_s
    from trainer.planner.gpus import UNKNOWN

    if folder is None:
        return 0
    found = disk_bytes_per_s(folder)
    say(f"{folder} is read at {found / 1e9:.2f} GB/s")
    return in_steps(found, UNKNOWN.disk_bytes_per_s)


def predicted(
    case: Case, sizes: Any, name: str, micro: int, plan: Any, folder: Path | None = None
) -> dict[str, float]:
    from trainer.planner.gpus import speed_of
    from trainer.planner.memory_plan import peak_bytes, tokens_per_s

    trained, summed = trainable(case, sizes), micro < case.blocks
    peak = peak_bytes(sizes, plan, micro, case.tokens, trained, summed=summed)
    speed = speed_of(name)
    speed = replace(speed, disk_bytes_per_s=disk_of(folder) or speed.disk_bytes_per_s)
    rate = tokens_per_s(sizes, plan, micro, case.tokens, speed, trained // case.rank)
    return {"predicted_gib": peak / GIB, "predicted_tokens_per_s": rate}


def hold_to(cap_gib: float | None) -> None:
    """What torch's allocator takes of the GPU from now on; None for all of it."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(cap_gib * GIB / total if cap_gib else 1.0)


def moved_to_host(base: Any, weights: dict[str, tuple[int, ...]], layers: int) -> Any:
    """So many layers of a base that is resident, as a loader would have put them."""
    import torch

    from trainer.models.streamed_base import StreamedBase

    if not layers:
        return None
    began = time.perf_counter()
    frozen, modules = StreamedBase(layers), dict(base.named_modules())
    frozen.allocate(weights, next(base.parameters()).device)
    for name in weights:
        weight = modules[name.removesuffix(".weight")].weight
        state = weight.quant_state
        parts = {
            name: weight.data,
            f"{name}.absmax": state.absmax,
            f"{name}.nested_absmax": state.state2.absmax,
        }
        kept = frozen.keep_shard(parts)
        weight.data, state.absmax, state.state2.absmax = kept.values()
    frozen.bind(base)
    if torch.cuda.is_available():
        closed_up(base, frozen)
    say(f"{layers} layers moved in {time.perf_counter() - began:.1f} s")
    return frozen


def moved_to_disk(frozen: Any, base: Any, weights: dict[str, tuple[int, ...]], folder: Path) -> Any:
    """The layers that lie in host memory, in a file instead."""
    from trainer.models import streamed_base

    began = time.perf_counter()
    vars(streamed_base)["LayerFile"] = forgetful()
    on_disk: Any = streamed_base.StreamedBase(len(frozen._host), folder)
    on_disk.allocate(weights, next(base.parameters()).device)
    for number, layer in enumerate(base.get_decoder().layers):
        layer._forward_pre_hooks.clear()
        layer._forward_hooks.clear()
        if number in frozen._host:
            on_disk._host[number].copy_(frozen._host[number])
    on_disk.bind(base)
    on_disk._file.forget()
    say(f"{len(frozen._host)} layers written in {time.perf_counter() - began:.1f} s")
    return on_disk


@functools.cache
def forgetful() -> Any:
    """A file of layers of which the kernel keeps nothing, as where memory is short."""
    from trainer.models.layer_file import LayerFile

    class Forgetful(LayerFile):
        def forget(self) -> None:
            os.fsync(self._file.fileno())
            # What is mapped would be kept.
            address = ctypes.c_void_p(self.bytes.data_ptr())
            ctypes.CDLL(None).madvise(address, ctypes.c_size_t(len(self.bytes)), mmap.MADV_DONTNEED)
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        def _read(self, part: range, *given: Any) -> None:
            super()._read(part, *given)
            advice = part.start, len(part), os.POSIX_FADV_DONTNEED
            os.posix_fadvise(self._file.fileno(), *advice)

    return Forgetful


def closed_up(base: Any, frozen: Any) -> None:
    """Give back what the layers that have left hold between the tensors that stay."""
    import torch

    slots = {slot.bytes.untyped_storage().data_ptr() for slot in frozen._slot_of.values()}
    holders: list[tuple[Any, str]] = []
    for parameter in base.parameters():
        holders.append((parameter, "data"))
        if (state := getattr(parameter, "quant_state", None)) is not None:
            holders += [(state, "absmax"), (state.state2, "absmax")]
    stay = [
        (holder, name)
        for holder, name in holders
        if getattr(holder, name).untyped_storage().data_ptr() not in slots
    ]
    for holder, name in stay:
        setattr(holder, name, getattr(holder, name).cpu())
    gc.collect()
    torch.cuda.empty_cache()
    for holder, name in stay:
        setattr(holder, name, getattr(holder, name).cuda())


def trained(
    case: Case, base: Any, frozen: Any, micro: int, plan: Any, cap_gib: float | None
) -> tuple[dict[str, Any], list[Any]]:
    """Speed and memory of an adapter's first steps on `base`, and the adapter that they made. The
    cap is lifted then: what gives the base back to the next way is no part of this one."""
    import torch
    from models import with_adapter

    from trainer.engine.decoder import Engine

    torch.manual_seed(1)
    tuned = with_adapter(base, case.targets, rank=case.rank)
    device = next(base.parameters()).device.type
    dtype = torch.float32 if device == "cpu" else torch.float16
    engine = None
    try:
        hold_to(cap_gib)
        engine = Engine(tuned, dtype=dtype, plan=plan, row_tokens=case.tokens, frozen=frozen)
        step = step_of(engine, case, micro)
        found: dict[str, Any] = {"losses": [step()]} if device == "cpu" else timed(step, case)
        adapter = [parameter.detach().cpu() for parameter in engine.parameters]
    finally:
        hold_to(None)
        if engine is not None:
            engine.close()
        tuned.unload()
    tokens, seconds = case.blocks * case.tokens, found.get("s", 1.0)
    zeros = dict.fromkeys(("peak_gib", "reserved_gib", "device_gib", "retries"), 0)
    say(f"loss {found['losses']}")
    return zeros | found | {"tokens_per_s": tokens / seconds}, adapter


def timed(step: Callable[[], float], case: Case) -> dict[str, Any]:
    """The median of the steps after the first."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    retries = torch.cuda.memory_stats()["num_alloc_retries"]
    before = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    seconds, losses = [], []
    for _ in range(case.steps):
        began = time.perf_counter()
        losses.append(step())
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    free, total = torch.cuda.mem_get_info()
    later = sorted(seconds[1:])
    return {
        "s": later[len(later) // 2],
        "first_s": seconds[0],
        "losses": losses,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "device_gib": (total - free) / GIB,
        "beside_gib": (total - before) / GIB,
        "retries": torch.cuda.memory_stats()["num_alloc_retries"] - retries,
    }


def step_of(engine: Any, case: Case, micro: int) -> Callable[[], float]:
    """An optimizer step as the job takes it."""
    import bitsandbytes
    import torch

    from trainer.distributed.data_parallel import GradientAccumulator
    from trainer.distributed.workers import Workers
    from trainer.kernels.attention import Documents

    kind = bitsandbytes.optim
    optimizer = (kind.PagedAdamW8bit if torch.cuda.is_available() else kind.AdamW8bit)(
        engine.parameters, lr=2e-4
    )
    scaler = torch.amp.GradScaler("cuda", init_scale=1024, enabled=torch.cuda.is_available())
    gradients = GradientAccumulator(0, Workers())
    device, tokens = engine.device, case.tokens
    chance = torch.Generator().manual_seed(0)
    batches = torch.randint(2000, (case.blocks // micro, micro, tokens), generator=chance)
    batches = batches.to(device)
    positions = torch.arange(tokens, device=device).repeat(micro, 1)
    bounds = torch.arange(0, micro * tokens + 1, tokens, dtype=torch.int32, device=device)
    where = Documents(bounds, tokens)

    def step() -> float:
        total: Any = None
        for ids in batches:
            loss = engine.loss_sum(ids, ids, positions, where) / (case.blocks * (tokens - 1))
            scaler.scale(loss).backward()
            if len(batches) > 1:
                gradients.add(engine.parameters, loss.detach())
            total = loss.detach()
        if len(batches) > 1:
            total, _ = gradients.all_reduce(engine.parameters, stop_requested=False)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return float(total)

    return step


if __name__ == "__main__":
    main()
