"""Headings are found where a reader would see them, and say what stands above a place."""

from collections.abc import Callable

import pytest

from trainer.corpus.examples import Heading
from trainer.corpus.headings import Outline, markdown_headings, rst_headings


def titles(headings: tuple[Heading, ...]) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in headings]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("# One\n\n### Three #\n", [(1, "One"), (3, "Three")]),
        ("One\n===\n\nTwo\n---\n", [(1, "One"), (2, "Two")]),
        ("```\n# code\n```\n~~~~\n# code\n~~~~\n## Text\n", [(2, "Text")]),
        ("#hashtag\n\n- item\n---\n\n| a |\n---\n", []),
        ("# \n\n#######  seven\n", []),
    ],
)
def test_headings_of_markdown(text: str, expected: list[tuple[int, str]]) -> None:
    assert titles(markdown_headings(text)) == expected


def test_levels_of_rst_are_those_of_their_first_appearance() -> None:
    text = "=====\nGuide\n=====\n\nUse\n~~~\n\nMore\n====\n\nAgain\n~~~~~\n\nToo long\n~~~\n"
    expected = [(1, "Guide"), (2, "Use"), (3, "More"), (2, "Again")]
    assert titles(rst_headings(text)) == expected


def test_a_heading_starts_where_its_line_does() -> None:
    text = "words\n\n# One\n\nTwo\n---\n"
    assert [text[heading.at :][:3] for heading in markdown_headings(text)] == ["# O", "Two"]


def test_the_path_names_the_sections_that_hold_a_place() -> None:
    text = "intro\n# One\na\n## Two\nb\n# Three\nc\n"
    outline = Outline(markdown_headings(text))
    assert outline.path(text.index("intro")) == ()
    assert outline.path(text.index("a\n")) == ("One",)
    assert outline.path(text.index("## Two")) == ("One",)
    assert outline.path(text.index("b\n")) == ("One", "Two")
    assert outline.path(text.index("c\n")) == ("Three",)


def test_the_last_section_start_is_looked_for_behind_the_low_end() -> None:
    text = "# One\n# Two\n# Three\n"
    outline = Outline(markdown_headings(text))
    two, three = text.index("# Two"), text.index("# Three")
    assert outline.last_start(0, three - 1) == two
    assert outline.last_start(two, three - 1) is None
    assert outline.last_start(0, len(text)) == three


@pytest.mark.parametrize(
    "line",
    ["# a{}b", "#{}b", "# a {}#{}b", "={}x", "-{}x", "```{}x"],
)
@pytest.mark.parametrize("headings", [markdown_headings, rst_headings])
def test_a_long_line_is_read_in_one_pass(
    headings: Callable[[str], tuple[Heading, ...]], line: str
) -> None:
    """A hundred times as much as took a quarter of an hour when it was tried at each character."""
    text = "title\n" + line.replace("{}", " " * 2_000_000) + "\n" + "=" * 2_000_000 + " x"
    assert len(headings(text)) <= 1


def test_a_title_ends_before_its_closing_marks() -> None:
    found = markdown_headings("# a ##\n## b # c #\t#\n### #\n#### d")
    assert [heading.title for heading in found] == ["a", "b # c", "d"]
