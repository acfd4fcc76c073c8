"""Whether our engine computes what the stock path computes, on the GPU that is here.

    python bench/exact.py [--layers 32]

A random-weight Llama-2-7B in NF4 with an adapter on q and v, packed documents of several lengths.

1. Gradients in fp16 and bf16, ours and the stock path's, each against the stock path's in float32
   (TF32 off): the relative error of every adapter tensor, the median and the worst. Rounding is all
   that may differ, so ours must not be further off than the stock path is.
2. Losses of 50 optimizer steps in fp16 from the same start, ours and the stock path's, each against
   the stock path's in float32. Such a run multiplies every rounding: how much of the distance is
   noise is said by the stock path with two attention kernels, its usual one and the plainest.

Ends with 1 where either does not hold.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from models import llama_2_7b, random_model, with_adapter

from trainer.dataset.collate import collate_for_engine, documents
from trainer.engine.decoder import Engine
from trainer.planner.memory_plan import MemoryPlan

ROWS, ROW, STEPS = 4, 512, 50
LENGTHS = [[200, 173, 139], [512], [64] * 8, [1, 300, 211]]
TARGETS = ["q_proj", "v_proj"]
WORSE = 1.2  # times the stock path's own error: two roundings in another order are not equal
LOSSES_WORSE = 2  # one such distance against another: the stock path's own two differ by 1.3
USUAL = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    layers = parser.parse_args().layers
    torch.backends.cuda.matmul.allow_tf32 = False
    truth = gradients(layers, torch.float32)
    failed = False
    for dtype in (torch.float16, torch.bfloat16):
        errors = {}
        for name, plan in [
            ("stock", None),
            ("ours, stored", MemoryPlan(layers, graph=True)),
            ("ours, unpacked", MemoryPlan(layers, unpacked_layers=layers // 2)),
            ("ours, recomputed", MemoryPlan(0, keep_attention=True, offload=True, mlp_rows=1000)),
        ]:
            found = gradients(layers, dtype, plan)
            off = sorted(relative(found[n], truth[n]) for n in truth)
            errors[name] = off[len(off) // 2], off[-1]
            print(
                f"{dtype!s:<15} {name:<17} gradient off by {errors[name][0]:.2e} (median), "
                f"{errors[name][1]:.2e} (worst of {len(off)})",
                flush=True,
            )
        limits = [WORSE * e for e in errors["stock"]]
        failed |= any(e[i] > limits[i] for e in errors.values() for i in (0, 1))
    exact = losses(layers, torch.float32, engine=False)
    print("losses, float32", " ".join(f"{x:.4f}" for x in exact[::7]), flush=True)
    medians = []
    for name, kernels in [("ours", USUAL), ("stock", USUAL), ("plain", [SDPBackend.MATH])]:
        with sdpa_kernel(kernels):
            seen = losses(layers, torch.float16, engine=name == "ours")
        apart = sorted(abs(a - b) / b for a, b in zip(seen, exact, strict=True))
        medians.append(apart[STEPS // 2])
        print(f"losses, {name:<7} {' '.join(f'{x:.4f}' for x in seen[::7])}", flush=True)
        print(f"  off by {medians[-1]:.2e} (median of {STEPS} steps), {apart[-1]:.2e} (worst)")
    failed |= medians[0] > LOSSES_WORSE * max(medians[1:])
    print("FAILED" if failed else "equal within rounding")
    sys.exit(failed)


def relative(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def batch(seed: int) -> dict[str, Any]:
    """A micro-batch on the GPU, as a step of training is given it."""
    noise = torch.Generator().manual_seed(seed)
    ids = torch.randint(32000, (ROWS, ROW), generator=noise)
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS])
    labels = ids.masked_fill(torch.rand(ids.shape, generator=noise) < 0.2, -100)
    labels = labels.masked_fill(positions == 0, -100)
    columns = {"input_ids": ids, "labels": labels, "position_ids": positions}
    made = collate_for_engine([{n: x[row] for n, x in columns.items()} for row in range(ROWS)])
    return {n: x.cuda() if isinstance(x, torch.Tensor) else x for n, x in made.items()}


def model_of(layers: int, dtype: torch.dtype) -> Any:
    """The same NF4 values for every dtype: they are rounded to fp16 before they are quantised."""
    model = random_model(llama_2_7b(layers), torch.float16)
    for module in model.modules():
        if hasattr(getattr(module, "weight", None), "quant_state"):
            module.weight.quant_state.dtype = dtype
            module.compute_dtype = dtype
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return with_adapter(model, TARGETS)


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def stock_loss(model: Any, given: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """The mean over trained tokens, as trl would take it."""
    columns = {name: given[name] for name in ("input_ids", "labels", "position_ids")}
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        loss: torch.Tensor = model(**columns, use_cache=False).loss
    return loss


def our_loss(made: Engine, given: dict[str, Any]) -> torch.Tensor:
    columns = given["input_ids"], given["labels"], given["position_ids"]
    total = made.loss_sum(*columns, documents(given))
    loss: torch.Tensor = total / given["labels"][:, 1:].ne(-100).sum()
    return loss


def gradients(
    layers: int, dtype: torch.dtype, plan: MemoryPlan | None = None
) -> dict[str, torch.Tensor]:
    """Of the mean loss of one batch, float32 on the CPU, by name; without a plan, stock's."""
    model, given = model_of(layers, dtype), batch(0)
    scale = 2.0**10
    if plan is None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        (stock_loss(model, given, dtype) * scale).backward()
        found = {n: filled(p) for n, p in trainable(model).items()}
    else:
        made = Engine(model, dtype=dtype, plan=plan, row_tokens=ROW)
        for _ in range(2):  # the second replays what the first has captured
            for parameter in made.parameters:
                parameter.grad = None
            (our_loss(made, given) * scale).backward()
        found = {n: of(made, p) for n, p in trainable(model).items()}
    return {n: g.float().cpu() / scale for n, g in found.items()}


def filled(parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:
        raise AssertionError("the stock path left a parameter without a gradient")
    return parameter.grad


def of(made: Engine, view: torch.nn.Parameter) -> torch.Tensor:
    """The gradient of one adapter tensor, which may be part of the engine's joined parameter."""
    for parameter in made.parameters:
        at = (view.data_ptr() - parameter.data_ptr()) // view.element_size()
        if 0 <= at < parameter.numel() and parameter.grad is not None:
            return parameter.grad.flatten()[at : at + view.numel()].view(view.shape)
    raise AssertionError("not a parameter of the engine")


def losses(layers: int, dtype: torch.dtype, *, engine: bool) -> list[float]:
    """Of 50 steps of 8-bit AdamW, in fp16 with loss scaling; four batches take turns."""
    import bitsandbytes

    model = model_of(layers, dtype)
    given = [batch(seed) for seed in range(4)]
    made = None
    parameters = list(trainable(model).values())
    if engine:
        made = Engine(model, dtype=dtype, plan=MemoryPlan(layers, graph=True), row_tokens=ROW)
        parameters = made.parameters
    optimizer = bitsandbytes.optim.PagedAdamW8bit(parameters, lr=1e-3)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    found = []
    for step in range(STEPS):
        now = given[step % len(given)]
        loss = our_loss(made, now) if made else stock_loss(model, now, dtype)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        found.append(float(loss.detach()))
    return found


if __name__ == "__main__":
    main()
