"""The numbers of lists are those that a reader sees."""

import pytest

from trainer.corpus.numbering import numeral


@pytest.mark.parametrize(
    "number, form, shown",
    [
        *((4, "1", "4"), (1, "a", "a"), (26, "A", "Z"), (27, "a", "aa"), (703, "a", "aaa")),
        *((4, "i", "iv"), (1994, "I", "MCMXCIV"), (4000, "i", "4000"), (0, "a", "0")),
        (-1, "i", "-1"),
    ],
)
def test_a_number_is_written_as_its_list_says(number: int, form: str, shown: str) -> None:
    assert numeral(number, form) == shown
