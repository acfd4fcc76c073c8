"""The versions that decide the result are those that are installed."""

import platform

import torch
import transformers

from trainer.runs.library_versions import LIBRARIES, library_versions


def test_every_library_has_its_version() -> None:
    found = library_versions()
    assert found.keys() == {"python", *LIBRARIES}
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"])  # a build for GPUs adds "+cu130" to its own
    assert found["transformers"] == transformers.__version__
