"""A run starts without what it does not use."""

import gc
from pathlib import Path

from support.jobs import start

from trainer.runtime import lean_imports

UNUSED = {"torch._inductor.compile_fx", "wandb", "mlflow"}


def test_a_run_imports_no_compiler_and_no_tracker(tmp_path: Path) -> None:
    process = start(tmp_path, environment={"PYTHONPROFILEIMPORTTIME": "1"}, MAX_STEPS="2")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-500:]
    imported = {line.rpartition("|")[2].strip() for line in errors.splitlines()}
    assert {"bitsandbytes", "trl", "trainer.execution"} < imported
    assert not imported & UNUSED


def test_the_compiler_is_there_for_others() -> None:
    lean_imports.import_bitsandbytes()
    import torch

    assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
    assert torch.compile.__module__ == "torch"


def test_what_imports_have_made_is_collected_no_more_and_what_comes_later_is() -> None:
    lean_imports.collect_rarely()
    lean_imports.collect_as_usual()
    frozen, later = gc.get_freeze_count(), [[] for _ in range(9_000)]
    lean_imports.collect_as_usual()
    assert 1_000 < gc.get_freeze_count() < frozen + len(later)
    assert gc.get_threshold() == lean_imports._USUAL
