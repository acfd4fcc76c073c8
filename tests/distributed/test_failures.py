"""One worker's failure becomes that of all: its sentence, its exit code."""

from pathlib import Path

import pytest
import torch
from support.worker_processes import ends, run_program, start_workers

from trainer.distributed.failures import OtherFailed, translate_errors
from trainer.errors import UnreachableError

# The second of two fails, while the first waits for it in a collective.
FAILING = """
import os
from trainer.distributed.workers import Workers
from trainer.errors import DataError, JobError

workers = Workers.from_environment(os.environ)
try:
    with workers.session("a run", minutes=2):
        if not workers.is_main:
            raise DataError("a file is broken")
        workers.all_reduce_sum(1)
except JobError as error:
    print(type(error).__name__, error)
"""


def test_one_worker_s_failure_is_that_of_all(tmp_path: Path) -> None:
    first, second = start_workers(tmp_path, 2, EFFECTIVE_BATCH_SIZE="1")
    assert ends([first, second]) == [2, 2]
    fault = "QLORA_EFFECTIVE_BATCH_SIZE=1 in micro-batches of 1 is too little for 2 workers"
    assert fault in first.stderr.read() and fault in second.stderr.read()


def test_an_adapter_that_the_main_worker_rejects_is_rejected_by_all(tmp_path: Path) -> None:
    """The others have nothing to do by then, and wait for it to publish."""
    first, second = start_workers(tmp_path, 2, MAX_LOSS_RATIO="0.01", MAX_STEPS="3")
    assert ends([first, second]) == [14, 14]
    assert second.stderr.read().startswith("error: worker 0: ")


def test_who_waits_in_a_collective_ends_with_the_type_and_sentence_of_who_failed() -> None:
    first, second = run_program(FAILING, 2)
    assert first.lines == ["DataError worker 1: a file is broken"], first.errors
    assert second.lines == ["DataError a file is broken"], second.errors


def test_without_a_store_the_others_count_as_unreachable() -> None:
    with pytest.raises(OtherFailed) as caught, translate_errors(None):
        raise RuntimeError("[gloo/pair.cc:1] Connection closed by peer\nframe #0")
    assert isinstance(caught.value.error, UnreachableError)
    assert "cannot be reached (Connection closed by peer)" in str(caught.value.error)


def test_a_worker_s_own_lack_of_memory_is_not_taken_for_another_s_failure() -> None:
    with pytest.raises(torch.OutOfMemoryError), translate_errors(None):
        raise torch.OutOfMemoryError("CUDA out of memory")
