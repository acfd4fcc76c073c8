"""When something was said, as tables write it -> the order in which it was."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time
from itertools import pairwise
from typing import Any

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?")
_CLOCK = r"(?:[\sT,]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*([AaPp][Mm])?)?"
_DAY = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})" + _CLOCK)

_LARGEST = 1e18

Key = tuple[float, ...]


def order(moments: Sequence[Any]) -> list[int] | None:
    """The numbers of `moments` from the first to the last: of numbers, ISO 8601, dates with dots,
    or with slashes where it is one order whether the day or the month comes first. Of those that
    are the same the first row is first, but where all rows run backwards. None where one is
    none of these."""
    found = []
    for read in (_day_first, _month_first):
        keys = [_key(moment, read) for moment in moments]
        known = [key for key in keys if key is not None]
        if len(known) == len(keys):
            found.append(_sorted(known))
    return found[0] if found and all(one == found[0] for one in found) else None


def _sorted(keys: Sequence[Key]) -> list[int]:
    rows = range(len(keys))
    pairs = list(pairwise(keys))
    is_backwards = all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
    return sorted(reversed(rows) if is_backwards else rows, key=lambda row: keys[row])


def _key(moment: Any, read: Callable[[re.Match[str]], datetime | None]) -> Key | None:
    if isinstance(moment, bool):
        return None
    if isinstance(moment, int | float):
        return (float(moment),) if -_LARGEST < moment < _LARGEST else None  # no NaN either
    if isinstance(moment, str):
        moment = _of_text(moment.strip(), read)
    if isinstance(moment, datetime):
        return (_seconds(moment),)
    if isinstance(moment, date):
        return (_seconds(datetime.combine(moment, time())),)
    if isinstance(moment, time):
        return (moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6,)
    return (moment,) if isinstance(moment, float) else None


def _of_text(text: str, read: Callable[[re.Match[str]], datetime | None]) -> Any:
    if _NUMBER.fullmatch(text):
        return float(text)
    with suppress(ValueError):
        return datetime.fromisoformat(text.replace("/", "-").removesuffix(" UTC"))
    with suppress(ValueError):
        return time.fromisoformat(f"0{text}" if text[1:2] == ":" else text)
    found = _DAY.fullmatch(text)
    return None if found is None else read(found)


def _day_first(found: re.Match[str]) -> datetime | None:
    return _of_parts(found, day=1, month=3)


def _month_first(found: re.Match[str]) -> datetime | None:
    """Nobody writes that with dots."""
    return None if found[2] == "." else _of_parts(found, day=3, month=1)


def _of_parts(found: re.Match[str], *, day: int, month: int) -> datetime | None:
    year, hour, half = int(found[4]), int(found[5] or 0), (found[8] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    with suppress(ValueError):
        return datetime(
            year if len(found[4]) == 4 else 2000 + year,
            int(found[month]),
            int(found[day]),
            hour,
            int(found[6] or 0),
            int(found[7] or 0),
        )
    return None


def _seconds(moment: datetime) -> float:
    """One without its zone is in the same one as the others."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
