"""How sentences for people count."""


def counted(number: int, one: str, several: str = "") -> str:
    """`1 record`, `2,000 records`; `several` where that is not `one` with an s: `copies`, or with
    a verb, `records are`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def lasting(seconds: float) -> str:
    """`0.4 seconds`, `48 seconds`, `1.5 minutes`, `2.0 hours`."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} hours"
    if seconds >= 60:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"
