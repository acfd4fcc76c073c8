"""How sentences for people count."""


def counted(number: int, one: str, several: str = "") -> str:
    """`1 record`, `2,000 records`; `several` where that is not `one` with an s: `copies`, or with
    a verb, `records are`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
