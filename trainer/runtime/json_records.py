"""JSON that somebody else, another version or a failing disk may have written: the one boundary.

What comes from it has the form that its reader asked for, or the reader gets a ValueError.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sys import float_info
from typing import Any

from trainer.runtime.regular_files import open_regular

LARGEST_BYTES = 64 << 20  # of a record that is parsed as a whole: the index of a large model has 1


@contextmanager
def well_formed(what: str) -> Iterator[None]:
    """Whatever reading `what` as something that it is not raises is a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except (
        *(LookupError, TypeError, AttributeError, ArithmeticError),
        *(RecursionError, MemoryError),
    ) as error:
        raise ValueError(f"not the form of {what} ({type(error).__name__})") from error


def whole_number(written: str) -> int:
    """Raises ValueError for one that is larger than any float: adding it to one would fail."""
    if len(written) > float_info.max_10_exp:
        raise ValueError(f"a number of {len(written)} digits")
    return int(written)


def parse_json(text: str | bytes, what: str = "JSON") -> Any:
    """Raises ValueError, also for what is too large or nested too deep."""
    if len(text) > LARGEST_BYTES:
        raise ValueError(f"{what} has more than {LARGEST_BYTES >> 20} MiB")
    with well_formed(what):
        return json.loads(text, parse_int=whole_number)


def json_object(text: str | bytes, what: str = "JSON") -> dict[str, Any]:
    """The same of an object. Raises ValueError for anything else."""
    found = parse_json(text, what)
    if not isinstance(found, dict):
        raise ValueError(f"{what} is no JSON object")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file. Raises OSError, and ValueError as `json_object`."""
    with open_regular(path) as file:
        return json_object(file.read(LARGEST_BYTES + 1), path.name)
