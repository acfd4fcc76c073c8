"""What stands between cells is told from what stands inside of one."""

from trainer.corpus.cells import cell, line


def test_a_sign_inside_of_a_cell_begins_no_other() -> None:
    assert cell("c | d\n e") == r"c \| d e"
    assert cell(cell("c|d")) == r"c\|d"


def test_empty_cells_stand_between_others_and_not_at_the_end() -> None:
    assert line(["a", "", r"b\|", "", ""]) == r"a |  | b\|"
    assert line(["", ""]) == ""
