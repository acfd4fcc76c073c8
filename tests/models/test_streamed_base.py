"""A base with layers in host memory: the same bytes computed, whoever asks for the layers.

On a CPU a slot is filled by a plain copy; which layer is in which slot when is the same.
"""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bases import settings_for, write_base
from support.jobs import adapter_bytes, run_here, stop_here
from support.small_models import gradients

from trainer.dataset.collate import collate_for_engine, documents
from trainer.engine.decoder import Engine
from trainer.errors import DoesNotFitError
from trainer.models import load
from trainer.models.locate import locate_base
from trainer.models.streamed_base import SLOTS, StreamedBase, spread
from trainer.planner.choose import Workload
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings

LAYERS, ROW = 4, 32


def loaded(scratch: Path, frozen: StreamedBase | None = None, **changes: str) -> Any:
    """The built-in model with an adapter that changes what it says."""
    given = {"QLORA_BASE_MODEL": "builtin:tiny", "QLORA_SCRATCH_DIR": str(scratch)} | changes
    settings = Settings.read({}, given, trains=False)
    base = load.load_base(
        locate_base(settings), settings, Precision("fp32", "a test"), find_device(), frozen
    )
    model = load.attach_adapter(base, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module", params=[1, 3, 4])
def streamed(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, StreamedBase]:
    frozen = StreamedBase(request.param)
    return loaded(tmp_path_factory.mktemp("streamed"), frozen), frozen


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    made: torch.Tensor = model(torch.arange(3, 40)[None]).logits
    return made


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
                if layer in frozen._host:
                    there = frozen._slot_of[layer].bytes[: len(frozen._host[layer])]
                    assert torch.equal(there, frozen._host[layer])
            gathering.close()


def test_what_was_quantised_is_kept_whole_in_the_cache(tmp_path: Path) -> None:
    cache = {"QLORA_BASE_CACHE_URI": str(tmp_path / "cache")}
    first = logits(loaded(tmp_path / "a", StreamedBase(3), **cache).eval())
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert torch.equal(logits(loaded(tmp_path / "b", **cache).eval()), first)
    assert torch.equal(logits(loaded(tmp_path / "c", StreamedBase(4), **cache).eval()), first)


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
    hosting = functools.partial(Workload, hosted_layers=3)  # as if the rest did not fit
    monkeypatch.setattr("trainer.planner.choose.Workload", hosting)
    stop_here(tmp_path / "hosted")
    run = run_here(tmp_path / "hosted")
    assert json.loads((run / "run.json").read_text())["micro_batch"]["plan"]["hosted_layers"] == 3
    assert adapter_bytes(run) == adapter_bytes(expected)
