"""Heavy libraries without what they import and a run does not use: a quarter of the start."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

_USUAL = gc.get_threshold()


def collect_rarely() -> None:
    """While libraries are imported: what that makes stays, and looking through it is 0.7 s."""
    gc.set_threshold(100_000, 10, 10)


def collect_as_usual() -> None:
    """Before anything is on a GPU that the collector might have to free. What the imports have made
    is not looked through again, which each time takes half a second."""
    if not gc.get_freeze_count():  # a second time there would be garbage among it
        gc.freeze()
    gc.set_threshold(*_USUAL)


def collect_no_more() -> None:
    """At the end of the process: what the libraries have made is not looked through once more,
    which takes a second and longer on a busy machine."""
    gc.freeze()


def import_bitsandbytes() -> None:
    """Before anything else imports it: without torch's compiler, which is 1.2 s and 60 MB.

    It has a few functions compiled, when it is imported, for devices other than CUDA and the CPU,
    where it has native ones.
    """
    import torch

    compiler = torch.compile
    torch.compile = _as_it_is  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiler


def _as_it_is(function: Any = None, **_: Any) -> Any:
    return function if function is not None else _as_it_is


@contextlib.contextmanager
def without_wandb() -> Iterator[None]:
    """trl imports W&B (0.8 s) wherever it is installed; the trackers do it when asked."""
    import transformers

    there = transformers.is_wandb_available
    transformers.is_wandb_available = lambda: False
    try:
        yield
    finally:
        transformers.is_wandb_available = there
