"""Questions that stand in the headings of a Markdown file."""

from pathlib import Path

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Notice, Text
from trainer.corpus.faq_headings import questions_in_headings
from trainer.corpus.formats import format_of, read
from trainer.corpus.prose import document

FAQ = """# Coffee

How we help.

## How long is the warranty?
30 months from the *day* of purchase.

## What does a seal cost?

- 4.90 euros

### In the shop
Less.

Where is the workshop?
----------------------
In Salt Street 12.
"""


def asked(text: str) -> list[tuple[str, str]]:
    found, _ = questions_in_headings(document(text))
    return [(record["question"], record["answer"]) for record in found]


def test_headings_that_ask_are_questions_and_what_is_below_is_the_answer() -> None:
    assert asked(FAQ) == [
        ("How long is the warranty?", "30 months from the *day* of purchase."),
        ("What does a seal cost?", "- 4.90 euros\n\n### In the shop\nLess."),
        ("Where is the workshop?", "In Salt Street 12."),
    ]
    assert questions_in_headings(document(FAQ))[1] == "# Coffee\n\nHow we help."
    assert not questions_in_headings(document(FAQ.replace("How we help.", "")))[1]


def test_a_text_with_some_questions_among_its_headings_stays_one() -> None:
    chapters = "".join(f"## Chapter {n}\nWords.\n" for n in range(4))
    for text in (
        FAQ.replace("cost?", "cost"),
        FAQ + chapters,
        "No heading.",
        "# Why?\n# How?\n# Who?",
    ):
        found = document(text)
        assert questions_in_headings(found) == ([], found.text)


def test_a_question_of_several_things_names_which() -> None:
    two = "".join(
        f"# {name}\n## How heavy?\n{n} kg\n## How old?\n{n}\n" for n, name in enumerate("AB")
    )
    assert asked(two)[0] == ("A: How heavy?", "0 kg") and asked(two)[3] == ("B: How old?", "1")


def test_a_file_gives_records_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "faq.md"
    path.write_text(FAQ)
    kinds: dict[type, list[object]] = {}
    for item in read(path, format_of(path.name), Columns()):
        kinds.setdefault(type(item), []).append(item)
    assert len(kinds[Conversation]) == 3 and len(kinds[Text]) == 1
    (said,) = kinds[Notice]
    assert isinstance(said, Notice) and said.amount == "3 questions"
