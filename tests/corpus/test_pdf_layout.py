"""Two columns are read one after the other, and rows of a table from side to side."""

from trainer.corpus.pdf_layout import Line, in_reading_order

WORDS = "five words of a column"


def line(text: str, x: float, y: float, width: float = 200) -> Line:
    return Line(text, x, x + width, y, 10)


def interleaved(left: str, right: str) -> list[Line]:
    return [
        found
        for n in range(8)
        for found in (line(f"{left}{n}", 50, 700 - 12 * n), line(f"{right}{n}", 300, 700 - 12 * n))
    ]


def texts(lines: list[Line]) -> list[str]:
    return [found.text for found in lines]


def test_columns_that_are_written_from_side_to_side_are_read_one_by_one() -> None:
    title, foot = line("A title across", 50, 720, 450), line("The foot of the page", 50, 600, 450)
    page = [title, *interleaved(f"{WORDS} a", f"{WORDS} b"), foot]
    left, right = ([f"{WORDS} {side}{n}" for n in range(8)] for side in "ab")
    assert texts(in_reading_order(iter(page))) == [title.text, *left, *right, foot.text]


def test_columns_that_come_in_order_stay_as_they_are() -> None:
    page = interleaved(f"{WORDS} a", f"{WORDS} b")
    ordered = [*page[::2], *page[1::2]]
    assert in_reading_order(iter(ordered)) == ordered


def test_the_rows_of_a_table_stay_rows() -> None:
    page = interleaved("cell a", "cell b")
    assert in_reading_order(iter(page)) == page


def test_a_page_of_one_column_stays_as_it_is() -> None:
    page = [line(f"{WORDS} {n}", 50, 700 - 12 * n, 450) for n in range(20)]
    assert in_reading_order(iter(page)) == page
    assert in_reading_order(iter([])) == []
