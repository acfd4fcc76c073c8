"""A sharded base: each worker holds its shard of the bytes, and all compute what one computes.

That whole runs end in the same bytes with it is in test_workers.py.
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bases import settings_for, write_base
from support.jobs import run_here
from support.worker_processes import Ended, run_program

from trainer.distributed.workers import Workers
from trainer.errors import DoesNotFitError, SettingsError
from trainer.models import load
from trainer.models.locate import locate_base
from trainer.models.sharded_base import ShardedBase
from trainer.runtime.device import Precision, find_device

# Loads the base whole, then sharded, then evaluates as the main worker does, once with the other
# worker and once when that is gone. Prints what it found.
WORKER = """
import gc, json, os
import torch
from trainer import execution
from trainer.distributed.workers import Workers
from trainer.models import load as models
from trainer.models.locate import locate_base
from trainer.models.sharded_base import ShardedBase
from trainer.runtime.device import Device, Precision, find_device
from trainer.settings import Settings

def held_bytes(loaded):
    "Of all that belongs to decoder layers, whoever keeps it."
    gc.collect()
    ends = loaded.get_input_embeddings().weight.untyped_storage().data_ptr()
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in gc.get_objects()
        if isinstance(t, torch.Tensor) and type(t) is not torch.distributed.tensor.DTensor
        and t.device.type == "cpu" and t.dtype == torch.uint8
    }
    return sum(size for at, size in storages.items() if at != ends)

def logits(loaded):
    with torch.no_grad():
        return loaded(torch.arange(3, 40)[None]).logits

workers = Workers.from_environment(os.environ)
settings = Settings.read({}, {"QLORA_BASE_MODEL": "builtin:tiny"}, trains=False)
base, fp32 = locate_base(settings), Precision("fp32", "a test")
found = {}
with workers.session("a run", minutes=2):
    # As if one GPU had less memory than the other, and the other less on its host.
    mine = Device("cuda", f"GPU {workers.rank}", (7, 5), 100 + workers.rank)
    found["agreed"] = repr(execution._smallest(settings, mine, workers)[0])
    whole = models.attach_adapter(models.load_base(base, settings, fp32, find_device()), settings)
    found["whole_bytes"] = held_bytes(whole)
    # Not in evaluation mode, in which bitsandbytes has another product for the CPU.
    expected = logits(whole.train())
    del whole
    frozen = ShardedBase(workers)
    sharded = models.load_base(base, settings, fp32, find_device(), frozen)
    sharded = models.attach_adapter(sharded, settings).eval()
    found["sharded_bytes"] = held_bytes(sharded)
    if workers.is_main:
        with frozen.gather_for_main(sharded):
            found["same"] = torch.equal(logits(sharded), expected)
    else:
        frozen.serve_gathers()
    found["after_bytes"] = held_bytes(sharded)
    print(json.dumps(found), flush=True)
    if not workers.is_main:
        os.kill(os.getpid(), 9)
    try:
        with frozen.gather_for_main(sharded):
            logits(sharded)
    except Exception as error:
        print(type(error.error).__name__, flush=True)
        os._exit(error.error.exit_code)
"""


@pytest.fixture(scope="module")
def workers() -> list[Ended]:
    return run_program(WORKER, 2)


def found(worker: Ended) -> dict[str, Any]:
    assert worker.lines, worker.errors
    content: dict[str, Any] = json.loads(worker.lines[0])
    return content


def test_each_worker_holds_half_of_the_base_before_and_after_it_was_used(
    workers: list[Ended],
) -> None:
    for worker in workers:
        bytes_of = found(worker)
        assert bytes_of["whole_bytes"] > 1_600_000
        for moment in ("sharded_bytes", "after_bytes"):
            assert bytes_of[moment] / bytes_of["whole_bytes"] == pytest.approx(0.5, abs=0.02)


def test_the_first_worker_computes_with_parts_what_it_computes_with_all(
    workers: list[Ended],
) -> None:
    assert found(workers[0])["same"] is True


def test_a_worker_lost_while_the_main_one_evaluates_ends_it_with_12(workers: list[Ended]) -> None:
    assert [worker.code for worker in workers] == [12, -signal.SIGKILL]
    assert workers[0].lines[-1] == "UnreachableError"


def test_workers_plan_for_the_one_with_least_memory(workers: list[Ended]) -> None:
    agreed = [found(worker)["agreed"] for worker in workers]
    assert agreed[0] == agreed[1]
    assert "GPU 0" in agreed[0] and "free_bytes=100" in agreed[0]


def test_the_stock_path_shards_no_base(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="QLORA_SHARDING=fsdp: builtin:tiny trains on the stock"
    ):
        run_here(tmp_path, ENGINE="stock", SHARDING="fsdp")


def test_a_layout_that_only_transformers_reads_is_not_loaded_whole_instead(tmp_path: Path) -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=2, n_positions=64)
    settings = settings_for(write_base(tmp_path / "base", config, torch.float32), tmp_path)
    base, precision = locate_base(settings), Precision("fp32", "a test")
    with pytest.raises(DoesNotFitError, match="transposed; use QLORA_SHARDING=ddp"):
        load.load_base(base, settings, precision, find_device(), ShardedBase(Workers(0, 2)))
