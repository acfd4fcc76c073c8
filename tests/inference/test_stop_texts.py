"""An answer ends before the first of its stops, wherever its pieces are cut."""

import pytest

from trainer.inference.stop_texts import until_stop

TEXT = "One. Two! ENDED. END of it"


def cut(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    given, found = until_stop(pieces, stops), ""
    while True:
        try:
            found += next(given)
        except StopIteration as end:
            return found, end.value


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ([], (TEXT, False)),
        (["absent"], (TEXT, False)),
        (["END "], ("One. Two! ENDED. ", True)),
        (["END"], ("One. Two! ", True)),
        (["it", "! E"], ("One. Two", True)),
        (["One"], ("", True)),
        (["it!"], (TEXT, False)),  # begun at the end, and never whole
    ],
)
def test_it_ends_before_the_first_stop(stops: list[str], expected: tuple[str, bool]) -> None:
    for size in (1, 2, 3, 7, len(TEXT)):
        pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
        assert cut(pieces, stops) == expected


def test_what_cannot_begin_a_stop_is_not_held_back() -> None:
    pieces = until_stop(iter(["One ", "tw", "o ", "three"]), ["two three"])
    assert next(pieces) == "One "
    assert list(pieces) == []
