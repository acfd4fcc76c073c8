"""A question goes with the one sentence behind which it is likely, word by word."""

import pytest

from trainer.preparation import fit
from trainer.preparation.fit import (
    ELSEWHERE,
    FOREIGN,
    FREE,
    QUANTITY,
    Bar,
    Scored,
    why_not,
)
from trainer.preparation.statements import Statement

QUESTION = "How heavy is Nora?"
PLACES = [(0, 4), (4, 10), (10, 13), (13, 18), (18, 19)]
MINE = Statement("It weighs 70 kilograms.", "Nora")
LIKELY, UNLIKELY = [-1.0, -1.0, 0.0, 0.0, 0.0], [-1.0, -8.0, 0.0, 0.0, 0.0]
# the same sums, but it is the subject that is unexpected elsewhere and not what is asked
CLUMSY = [-1.0, -2.0, -1.0, -1.0, 0.0]
EARLY = [-8.0, -1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "bar", "reason"),
    [
        ([LIKELY, UNLIKELY, UNLIKELY], FREE, None),
        ([UNLIKELY, LIKELY, UNLIKELY], QUANTITY, ELSEWHERE),
        ([LIKELY, LIKELY, UNLIKELY], QUANTITY, ELSEWHERE),
        ([LIKELY, UNLIKELY, LIKELY], QUANTITY, ELSEWHERE),  # it fits anything
        ([CLUMSY, UNLIKELY, UNLIKELY], FREE, fit.UNLIKELY),
        ([LIKELY, EARLY, EARLY], FREE, FOREIGN),
        ([LIKELY, EARLY, EARLY], QUANTITY, None),  # one that was made for it has its words from us
    ],
)
def test_it_is_likelier_behind_its_own_sentence_and_so_are_its_own_words(
    rows: list[list[float]], bar: Bar, reason: str | None
) -> None:
    assert why_not(Scored(QUESTION, rows, PLACES), 0, MINE, bar) == reason
