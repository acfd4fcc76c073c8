"""A base with layers in host memory: the same bytes computed, whoever asks for the layers.

On a CPU a slot is filled by a plain copy; which layer is in which slot when is the same.
"""

import functools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from support.bases import settings_for, write_base
from support.jobs import (
    ROOT,
    adapter_bytes,
    only_run,
    run_here,
    stop_here,
    variables,
    wait_for_step,
)
from support.small_models import gradients

from trainer.dataset.collate import collate_for_engine, documents
from trainer.engine.decoder import Engine
from trainer.engine.greedy_decoder import GreedyDecoder, why_not
from trainer.errors import DoesNotFitError
from trainer.models import load
from trainer.models.frozen_base import streamed_base_of
from trainer.models.locate import locate_base
from trainer.models.streamed_base import SLOTS, StreamedBase, spread, to_answer
from trainer.planner.choose import Workload
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings

LAYERS, ROW = 4, 32
HOSTED_WORKLOAD = functools.partial(Workload, hosted_layers=3)  # as if the rest did not fit
DISK_WORKLOAD = functools.partial(HOSTED_WORKLOAD, on_disk=True)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def loaded(
    scratch: Path, frozen: StreamedBase | None = None, precision: str = "fp32", **changes: str
) -> Any:
    """The built-in model with an adapter that changes what it says."""
    given = {"QLORA_BASE_MODEL": "builtin:tiny", "QLORA_SCRATCH_DIR": str(scratch)} | changes
    settings = Settings.read({}, given, trains=False)
    base = load.load_base(
        locate_base(settings), settings, Precision(precision, "a test"), find_device(), frozen
    )
    model = load.attach_adapter(base, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module", params=[(1, False), (3, False), (4, False), (3, True)])
def streamed(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, StreamedBase]:
    """With so many layers in host memory, or on disk."""
    count, on_disk = request.param
    folder = tmp_path_factory.mktemp("streamed")
    frozen = StreamedBase(count, folder if on_disk else None)
    return loaded(folder, frozen), frozen


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    made: torch.Tensor = model(torch.arange(3, 40)[None]).logits
    return made


def answered(model: Any) -> list[tuple[int, list[int]]]:
    """By our own loop: of several lengths, more questions than rows."""
    assert why_not(model) is None
    asked = [[(17 * n + at) % 331 for at in range(1 + 7 * n % 20)] for n in range(9)]
    decoder, found = GreedyDecoder(model, [2]), []
    for tuned in (True, False):
        found += sorted(decoder.answers(asked, 12, tuned=tuned, most_rows=4))
    decoder.close()
    return found


def test_our_own_loop_answers_with_it(whole: Any, streamed: tuple[Any, StreamedBase]) -> None:
    model, frozen = streamed
    assert answered(model.eval()) == answered(whole.eval())
    assert {slot.layer for slot in frozen._slot_of.values()} <= set(frozen._host)


def batch() -> dict[str, Any]:
    ids = torch.arange(5, 5 + ROW)
    return collate_for_engine([{"input_ids": ids, "labels": ids, "position_ids": ids - 5}] * 2)


def trained(model: Any, frozen: StreamedBase | None, plan: MemoryPlan) -> Any:
    torch.manual_seed(3)
    made = Engine(model, dtype=torch.float32, plan=plan, row_tokens=ROW, frozen=frozen)
    given = batch()
    tensors = (given[name] for name in ("input_ids", "labels", "position_ids"))
    loss = made.loss_sum(*tensors, documents(given))
    return loss.detach(), gradients(model, loss)


def test_the_layers_in_host_memory_lie_evenly_among_the_others() -> None:
    assert spread(2, 8) == [2, 6]
    assert spread(3, 4) == [0, 2, 3]
    assert [len(set(spread(count, 80))) for count in range(81)] == list(range(81))


def test_the_device_holds_the_slots_and_the_layers_that_stay(
    streamed: tuple[Any, StreamedBase],
) -> None:
    model, frozen = streamed
    held = {
        module.base_layer.weight.untyped_storage().data_ptr()
        for layer in spread(frozen._count, LAYERS)
        for module in model.get_base_model().get_decoder().layers[layer].modules()
        if hasattr(module, "base_layer")
    }
    assert len(held) == min(SLOTS, frozen._count)


def test_it_may_be_called_like_any_other(whole: Any, streamed: tuple[Any, StreamedBase]) -> None:
    model, _ = streamed
    expected = logits(whole.eval())
    for _ in range(2):
        assert torch.equal(logits(model.eval()), expected)


@pytest.mark.parametrize("stored", [0, 2, 4])
def test_loss_and_gradients_are_the_same_bytes(
    stored: int, whole: Any, streamed: tuple[Any, StreamedBase]
) -> None:
    model, frozen = streamed
    expected, wanted = trained(whole, None, MemoryPlan(stored))
    for _ in range(2):
        loss, grads = trained(model, frozen, MemoryPlan(stored, hosted_layers=frozen._count))
        assert torch.equal(loss, expected)
        assert grads.keys() == wanted.keys()
        assert all(torch.equal(grads[name], wanted[name]) for name in wanted)


def test_layers_are_gathered_in_any_order_and_given_up_in_between(
    streamed: tuple[Any, StreamedBase],
) -> None:
    _, frozen = streamed
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 0, 3], [1], [0, 3]):
        for stop in (len(order), 1):
            gathering = frozen.gather_layers(order)
            for layer, _ in zip(gathering, range(stop), strict=False):
                if layer in frozen._host:  # a thread may have filled it
                    there = frozen._slot_of[layer].bytes[: len(frozen._host[layer])]
                    assert torch.equal(there, frozen._host[layer])
            gathering.close()


def test_what_was_quantised_is_kept_whole_in_the_cache(tmp_path: Path) -> None:
    cache = {"QLORA_BASE_CACHE_URI": str(tmp_path / "cache")}
    first = logits(loaded(tmp_path / "a", StreamedBase(3), **cache).eval())
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert torch.equal(logits(loaded(tmp_path / "b", **cache).eval()), first)
    on_disk = StreamedBase(4, tmp_path / "file")
    assert torch.equal(logits(loaded(tmp_path / "c", on_disk, **cache).eval()), first)
    assert not list((tmp_path / "file").iterdir())  # it has no name, so that nothing is left of it


def test_a_layout_that_only_transformers_reads_is_not_loaded_whole_instead(tmp_path: Path) -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=2, n_positions=64)
    settings = settings_for(write_base(tmp_path / "base", config, torch.float32), tmp_path)
    base, precision = locate_base(settings), Precision("fp32", "a test")
    with pytest.raises(DoesNotFitError, match=r"cannot lie in host memory.*use a smaller model"):
        load.load_base(base, settings, precision, find_device(), StreamedBase(1))


def test_a_run_ends_in_the_same_bytes_killed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_here(tmp_path / "whole")
    monkeypatch.setattr("trainer.planner.choose.Workload", HOSTED_WORKLOAD)
    stop_here(tmp_path / "hosted")
    monkeypatch.setattr("trainer.planner.choose.Workload", DISK_WORKLOAD)  # where memory has gone
    run = run_here(tmp_path / "hosted")
    plan = json.loads((run / "run.json").read_text())["micro_batch"]["plan"]
    assert plan["hosted_layers"] == 3 and plan["on_disk"]
    assert adapter_bytes(run) == adapter_bytes(expected)


# -- on a GPU ---------------------------------------------------------------------------------

ON_A_GPU = {
    "stored": MemoryPlan(LAYERS),
    "recomputed": MemoryPlan(0, mlp_rows=40, logit_rows=17),
    "offloaded": MemoryPlan(
        0, keep_attention=True, offload=True, mlp_rows=40, offload_embeddings=True
    ),
}
# The command with HOSTED_WORKLOAD.
HOSTING = """
import functools, sys
from trainer.planner import choose
choose.Workload = functools.partial(choose.Workload, hosted_layers=3)
from trainer.__main__ import main
main()
"""


def twenty_steps(
    scratch: Path, hosted: int, plan: MemoryPlan
) -> tuple[list[float], list[torch.Tensor]]:
    """Losses, and the last gradients and what was trained, of steps with dropout and with held-out
    losses in between."""
    frozen = StreamedBase(hosted, scratch if plan.on_disk else None) if hosted else None
    model = loaded(scratch, frozen, "fp16", QLORA_LORA_DROPOUT="0.1").train()
    load.adapter_to_float32(model)
    engine = Engine(model, dtype=torch.float16, plan=plan, row_tokens=ROW, frozen=frozen)
    optimizer = bitsandbytes.optim.PagedAdamW8bit(engine.parameters, lr=2e-3)
    rows = []
    for step in range(20):
        ids = (torch.arange(ROW) * (step + 3) + 7) % 331
        rows.append({"input_ids": ids, "labels": ids, "position_ids": torch.arange(ROW)})
    losses = []
    for step in range(20):
        given = collate_for_engine([rows[step], rows[step - 1], rows[step - 2]])
        given = {n: t.cuda() if isinstance(t, torch.Tensor) else t for n, t in given.items()}
        named = [given[name] for name in ("input_ids", "labels", "position_ids")]
        if step % 5 == 0:
            losses.append(float(engine.held_out_sum(*named, documents(given))))
        optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(step)
        loss = engine.loss_sum(*named, documents(given))
        (loss / 100).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    ended = [p.grad.cpu() for p in engine.parameters] + [
        p.detach().cpu() for p in engine.parameters
    ]
    engine.close()
    return losses, ended


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("plan", ON_A_GPU)
def test_twenty_steps_on_a_gpu_are_those_of_a_resident_base(plan: str, tmp_path: Path) -> None:
    losses, expected = twenty_steps(tmp_path / "whole", 0, ON_A_GPU[plan])
    assert len(set(losses)) == len(losses) and all(map(math.isfinite, losses))
    for hosted, on_disk in ((1, False), (3, False), (3, True), (LAYERS, False), (LAYERS, True)):
        made = replace(ON_A_GPU[plan], hosted_layers=hosted, on_disk=on_disk)
        found, ended = twenty_steps(tmp_path / f"{hosted}{on_disk}", hosted, made)
        assert found == losses
        assert all(map(torch.equal, ended, expected))


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_layer_that_is_still_on_its_way_is_waited_for(on_disk: bool, tmp_path: Path) -> None:
    """And a slot is not filled while it is read: layers of 64 MiB, each of one number."""
    size, layers = 2**26, 7
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(layers)]
    frozen = StreamedBase(layers, tmp_path if on_disk else None)
    frozen.allocate({name: (2 * size // 64, 64) for name in names}, torch.device("cuda"))
    for number, host in frozen._host.items():
        host.fill_(number + 1)
    busy = torch.ones(4096, 4096, device="cuda", dtype=torch.float16)
    sums = []
    for order in [range(layers), reversed(range(layers))] * 3:
        for number in frozen.gather_layers(order):
            there = frozen._slot_of[number].bytes[:size]
            first = there.sum(dtype=torch.int64)
            for _ in range(number % 3 * 4):
                busy = busy @ busy * 0
            sums.append((number + 1, first, there.sum(dtype=torch.int64)))
    for value, *found in sums:
        assert [int(total) for total in found] == [value * size] * 2


@pytest.mark.cuda
@needs_gpu
def test_a_gpu_answers_with_it_as_with_any_other(tmp_path: Path) -> None:
    frozen = StreamedBase(3)
    whole = loaded(tmp_path / "whole", None, "fp16").eval()
    model = loaded(tmp_path / "hosted", frozen, "fp16").eval()
    ids = torch.arange(3, 40, device="cuda")[None]
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(model(ids).logits, whole(ids).logits)
    assert answered(model) == answered(whole)


@pytest.mark.cuda
@needs_gpu
def test_only_who_asks_for_a_base_to_answer_gets_layers_in_host_memory(tmp_path: Path) -> None:
    """However little a device is said to have."""
    given = {"QLORA_BASE_MODEL": "builtin:tiny", "QLORA_SCRATCH_DIR": str(tmp_path)}
    settings = Settings.read({}, given, trains=False)
    base, full = locate_base(settings), replace(find_device(), free_bytes=0)
    precision = Precision("fp16", "a test")
    assert streamed_base_of(load.load_base(base, settings, precision, full)) is None
    hosted = load.load_base(base, settings, precision, full, to_answer(base, settings, full))
    found = streamed_base_of(hosted)
    assert isinstance(found, StreamedBase) and len(found._host) == LAYERS
    assert not isinstance(to_answer(base, settings, find_device()), StreamedBase)


@pytest.mark.cuda
@needs_gpu
def test_a_run_on_a_gpu_that_was_killed_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"PRECISION": "fp16", "MAX_STEPS": "40"}

    def command() -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
        return subprocess.Popen(
            [sys.executable, "-c", HOSTING],
            cwd=ROOT,
            env=clean | variables(tmp_path / "killed", **changes),
            stdout=subprocess.PIPE,
            text=True,
        )

    killed = command()
    wait_for_step(killed, 11)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    resumed = command()
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0 and "resuming from checkpoint" in output
    run = only_run(tmp_path / "killed")
    monkeypatch.setattr("trainer.planner.choose.Workload", HOSTED_WORKLOAD)
    expected = run_here(tmp_path / "whole", **changes)
    for made in (run, expected):
        plan = json.loads((made / "run.json").read_text())["micro_batch"]["plan"]
        assert plan["hosted_layers"] == 3
    assert adapter_bytes(run) == adapter_bytes(expected)
