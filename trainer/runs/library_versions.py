"""The versions of the libraries that decide the result of a run."""

import platform
from importlib.metadata import version

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
)


def library_versions() -> dict[str, str]:
    """The versions that decide the result."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
