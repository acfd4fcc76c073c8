"""Text files are documents: without comments that nobody sees, and tables are told from prose."""

from pathlib import Path

import pytest
from support.corpora import read_files

from trainer.corpus.examples import Conversation, Message, Text
from trainer.corpus.prose import without_comments


@pytest.mark.parametrize(
    "text, kept",
    [
        ("a <!-- b --> c", "a  c"),
        ("a\n<!-- b\n\nc -->\nd", "a\nd"),
        ("a %%b%% c", "a  c"),
        ("a\n%%\nb\n\nc\n%%\nd", "a\nd"),
        ("# H %% x %%\n\ny", "# H \n\ny"),
    ],
)
def test_a_comment_is_left_out(text: str, kept: str) -> None:
    assert without_comments(text) == (kept, 1)


@pytest.mark.parametrize(
    "text",
    [
        "`<!-- a -->` and ``%% b %%``",
        "```html\n<!-- a -->\n%% b %%\n```\n",
        "~~~\n<!-- never closed\n%% a %%",
        "<!-- never closed %% nor that",
        "100%% of it, and 50%% more",
        "a %% b\n\nc %% d",
        'printf("%%d%%")',
    ],
)
def test_what_is_no_comment_stays(text: str) -> None:
    assert without_comments(text) == (text, 0)


def test_many_that_are_never_closed_take_no_time() -> None:
    text = "<!-- " * 200_000 + "-->" + "<!-- ` ``x %%\n\n" * 50_000
    assert without_comments(text)[1] == 1


@pytest.mark.parametrize("part", ["%% a %% ", "`a` ", "` ``a "])
def test_one_long_paragraph_of_marks_takes_no_time(part: str) -> None:
    """Where lines and paragraphs end is looked for once."""
    text = part * ((1 << 20) // len(part))
    assert without_comments(text)[0].strip("` a") == ""


def test_comments_of_a_file_are_told_with_their_headings_in_place(tmp_path: Path) -> None:
    content = b"<!-- draft -->\n# One\n\n%% later %% Text.\n\n## Two\n"
    corpus = read_files(tmp_path, {"a.md": content})
    (found,) = corpus.examples
    assert isinstance(found, Text)
    assert found.text == "# One\n\n Text.\n\n## Two\n"
    assert [found.text[h.at :].split("\n")[0] for h in found.headings] == ["# One", "## Two"]
    assert corpus.notices == [
        "a.md (2 comments): comments of Markdown, as <!-- … --> and %% … %%, are not used"
    ]


@pytest.mark.parametrize("between", ["\t", ";", ","])
def test_a_table_that_is_saved_as_text_is_read_as_one(tmp_path: Path, between: str) -> None:
    content = f"Frage{between}Antwort\r\nWo?{between}Hier\r\n".encode()
    corpus = read_files(tmp_path, {"a.txt": content})
    assert corpus.examples == [Conversation((Message("user", "Wo?"), Message("assistant", "Hier")))]
    assert "read as one" in corpus.notices[0]


def test_columns_that_nothing_names_are_told_and_stay_prose(tmp_path: Path) -> None:
    corpus = read_files(tmp_path, {"a.txt": b"ann\t7\nbob\t8\n"})
    assert corpus.examples == [Text("ann\t7\nbob\t8\n")]
    assert "name it .tsv" in corpus.notices[0]


@pytest.mark.parametrize(
    "content",
    [b"Question, answer\n\nThat is how it goes.\n", b"Text, note\n\nA, b\n", b"a\tb\nc\n"],
)
def test_prose_stays_prose(tmp_path: Path, content: bytes) -> None:
    corpus = read_files(tmp_path, {"a.txt": content})
    assert (corpus.examples, corpus.notices) == ([Text(content.decode())], [])
