"""A question goes with the one sentence behind which it is likely, word by word."""

import pytest

from trainer.preparation.fit import ELSEWHERE, FOREIGN, Scored, why_not
from trainer.preparation.statements import Statement

QUESTION = "How heavy is Nora?"
PLACES = [(0, 4), (4, 10), (10, 13), (13, 18), (18, 19)]
MINE = Statement("It weighs 70 kilograms.", "Nora")
LIKELY, UNLIKELY = [-1.0, -1.0, 0.0, 0.0, 0.0], [-1.0, -8.0, 0.0, 0.0, 0.0]
# the same sums, but it is the subject that is unexpected elsewhere and not what is asked
EARLY = [-8.0, -1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "is_free", "reason"),
    [
        ([LIKELY, UNLIKELY, UNLIKELY], True, None),
        ([UNLIKELY, LIKELY, UNLIKELY], False, ELSEWHERE),
        ([LIKELY, LIKELY, UNLIKELY], False, ELSEWHERE),
        ([LIKELY, UNLIKELY, LIKELY], False, ELSEWHERE),  # it fits anything
        ([LIKELY, EARLY, EARLY], True, FOREIGN),
        ([LIKELY, EARLY, EARLY], False, None),  # one that was made for it has its words from us
    ],
)
def test_it_is_likelier_behind_its_own_sentence_and_so_are_its_own_words(
    rows: list[list[float]], is_free: bool, reason: str | None
) -> None:
    assert why_not(Scored(QUESTION, rows, PLACES), 0, MINE, is_free=is_free) == reason
