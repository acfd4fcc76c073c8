"""The versions that decide the result are those that are installed."""

import platform

import torch
import transformers

from trainer.runs.library_versions import LIBRARIES, library_versions


def test_every_library_has_its_version() -> None:
    found = library_versions()
    assert found.keys() == {"python", *LIBRARIES}
    assert found["python"] == platform.python_version()
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)
