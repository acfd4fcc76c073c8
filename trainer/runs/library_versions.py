"""The versions of the libraries that decide the result of a run."""

import platform
from importlib.metadata import PackageNotFoundError, version

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


def installed(library: str) -> str:
    """The version of `library`, found without importing it; what is missing is no failure."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"
