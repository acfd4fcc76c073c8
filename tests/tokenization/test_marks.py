"""Contents are found between marks that are taken out again."""

import pytest

from trainer.corpus.examples import Unusable
from trainer.tokenization.marks import Marks, Region


def test_what_was_marked_is_found_where_it_was_written():
    marks = Marks(["one", "two"])
    one, two = marks.put(0, " one\n"), marks.put(1, "two")
    text, regions = marks.take(f"<a>{two}<b>{one.strip()}<c>")
    assert text == "<a>two<b>one<c>"
    assert regions == [Region(3, 6, 1, 1), Region(9, 12, 0, 0)]
    assert not marks.lost(regions)


def test_what_was_not_written_is_lost_and_what_was_cut_is_too():
    marks = Marks(["one", "two"])
    one, _ = marks.put(0, "one"), marks.put(1, "two")
    text, regions = marks.take(one[:-2])
    assert text.startswith("one") and not regions
    assert marks.lost(regions) == {0: 1, 1: 1}


def test_white_space_at_the_ends_stays_where_a_template_finds_it():
    marked = Marks([" x "]).put(0, " x ")
    assert marked[0] == marked[-1] == " " and marked.strip() != "x"
    assert Marks([" "]).put(0, " ") == " "


def test_a_record_that_holds_the_marks_is_marked_with_others_or_refused():
    marks = Marks(["\ue000"])
    assert marks.take(marks.put(0, "a\ue000b"))[0] == "a\ue000b"
    with pytest.raises(Unusable, match="all characters that could mark"):
        Marks(["\ue000\uf8d0\U000f0000"])
