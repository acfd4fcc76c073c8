"""Documents in passages, each once and with the headings above it."""

from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.corpus.headings import markdown_headings
from trainer.dataset.passages import (
    LEAST_PASSAGE_CHARS,
    PASSAGE_CHARS,
    passages,
    passages_of_records,
)

PARAGRAPH = "The fan of the dryer turns at three speeds, and the lid is closed while it turns. " * 6
DOCUMENT = f"# Dryer\n\n{PARAGRAPH}\n\n## Care\n\n{PARAGRAPH}\n\n{PARAGRAPH}\n\n{PARAGRAPH}\n"


def test_every_word_of_a_document_is_in_one_passage_below_its_headings() -> None:
    document = Text(DOCUMENT, markdown_headings(DOCUMENT))
    found = list(passages([(1, document)], ["other.md", "dryer.md"]))
    assert " ".join(p.text for p in found).split() == DOCUMENT.split()
    assert all(LEAST_PASSAGE_CHARS <= len(p.text) <= PASSAGE_CHARS for p in found)
    assert {p.source for p in found} == {"dryer.md"} and found[-1].section == "Dryer > Care"


def test_a_passage_that_stands_twice_is_one_and_records_are_none() -> None:
    examples = [(0, Text(DOCUMENT)), (0, Text(DOCUMENT)), (0, Completion(PARAGRAPH, PARAGRAPH))]
    assert len(list(passages(examples, ["a.md"]))) == len(list(passages(examples[:1], ["a.md"])))


def test_answers_about_one_thing_are_a_passage() -> None:
    asked = [
        ("How heavy is the Nora X1?", "It weighs 3 kg."),
        ("How heavy is the Nora X2?", "It weighs 4 kg."),
        ("What does the Nora X1 weigh?", "It weighs 3 kg."),
        ("Who repairs the Nora X1?", "Kim does."),
        ("How is the Nora X1 cleaned?", "Open it.\nWipe it."),  # two lines are no statement
    ]
    records = [
        (0, Conversation((Message("user", question), Message("assistant", answer))))
        for question, answer in asked
    ]
    found = [(p.section, p.answers, p.source) for p in passages_of_records(records, ["a.jsonl"])]
    assert found == [
        ("Nora X1", ("It weighs 3 kg.", "Kim does."), "a.jsonl"),
        ("Nora X2", ("It weighs 4 kg.",), "a.jsonl"),
    ]


def test_the_headings_of_a_document_are_gone_through_once() -> None:
    """For each passage from the first: 25,000 took 40 s, and all of it twice."""
    text = "".join(f"# heading {n}\n\n{'so many words ' * 7}\n\n" for n in range(25_000))
    found = list(passages([(0, Text(text, markdown_headings(text)))], ["a.md"]))
    assert len(found) == 25_000
    assert found[-1].section == "heading 24999"
