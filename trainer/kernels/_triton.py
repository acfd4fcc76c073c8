"""Triton where it is installed; names that stand in for it where it is not (a CPU's torch)."""

import contextlib
import importlib
from typing import Any

__all__ = ["cdiv", "jit", "next_power_of_2", "tl", "triton"]


class _Language:
    constexpr = int


triton: Any = None
tl: Any = _Language


def jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


with contextlib.suppress(ImportError):
    triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def cdiv(number: int, divisor: int) -> int:
    return -(-number // divisor)
