"""A question points to one passage of all by the words that they share."""

import pytest

from trainer.dataset.passages import Passage
from trainer.preparation.pointing import PassageWords

LID = Passage("The lids are closed by a spring.", "a.md", "Dryer > Lid")
FAN = Passage("The fan turns at night, when the lid is closed.", "b.md", "Dryer > Fan")


@pytest.mark.parametrize(
    ("question", "points"),
    [
        ("What closes the lid with a spring?", True),
        ("Is the lid closed?", False),  # both say so
        ("What is it?", False),
        ("What about the spring of the kettle?", True),  # a word that is nowhere says nothing
        ("How does the fan turn?", False),  # not to this one
    ],
)
def test_it_does_where_no_other_passage_has_all_that_this_one_has(
    question: str, points: bool
) -> None:
    assert PassageWords([LID, FAN]).point_to(question, LID) is points
