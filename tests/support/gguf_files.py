"""GGUF files of random adapters, and llama.cpp where it is installed.

`pip install llama-cpp-python` compiles for minutes, so it is not among the requirements.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from trainer.export.gguf import PARTS, export
from trainer.export.lora_delta import NF4
from trainer.models import adapters
from trainer.settings import Settings

HAS_LLAMA_CPP = importlib.util.find_spec("llama_cpp") is not None

with_llama_cpp = pytest.mark.skipif(not HAS_LLAMA_CPP, reason="llama-cpp-python is not installed")
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def exported(output: Path, run: Path, base: Path | None = None, base_weights: str = NF4) -> Path:
    settings = Settings.read({}, {}, trains=False)
    adapter = adapters.find_adapter(str(run), settings, base and str(base))
    return export(adapter, settings, PARTS, output, base_weights)


def llama_cpp(model: Path, adapter: Path | None = None, **options: Any) -> Any:
    from llama_cpp import Llama

    lora = str(adapter) if adapter else None
    return Llama(str(model), lora_path=lora, n_ctx=512, n_threads=1, verbose=False, **options)
