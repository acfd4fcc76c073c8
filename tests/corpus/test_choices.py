"""A question with choices is asked with them, and its answer is a choice and no letter alone."""

import pytest
from support.corpora import read_files
from support.makers import jsonl

from trainer.corpus.choices import Choices
from trainer.corpus.examples import Conversation, Message, Unusable
from trainer.errors import DataError

QUESTION = {"question": "Which bird wades?"}
PLOVER, SWIFT = "the plover", "the swift"
ASKED = "Which bird wades?\n\nA. the swift\nB. the plover"


@pytest.mark.parametrize(
    "more",
    [
        {"choices": [SWIFT, PLOVER], "answer": 1},
        {"choices": [f"A) {SWIFT}", f"B) {PLOVER}"], "answer": "b"},
        {"options": {"A": SWIFT, "B": PLOVER}, "answer": PLOVER},
        {"options": {"A": SWIFT, "B": PLOVER}, "answer_key": "B"},
        {"choices": {"text": [SWIFT, PLOVER], "label": ["A", "B"]}, "answerKey": "B"},
        {"A": SWIFT, "B": PLOVER, "answer": "(B)"},
        {"A": SWIFT, "B": PLOVER, "answerKey": "B"},
        {"option_1": SWIFT, "option_2": PLOVER, "answer": "B"},
        {"choices": [{"text": SWIFT, "label": "A"}, {"text": PLOVER, "label": "B"}], "answer": "B"},
        {"choices": f"{SWIFT}; {PLOVER}", "answer": "B"},
        {"choices": f"{SWIFT} | {PLOVER}", "answer": PLOVER},
        {"choices": f"A. {SWIFT}\nB. {PLOVER}", "answer": "B"},
        {"choices": f"['{SWIFT}', '{PLOVER}']", "answer": "B"},
        {"Option A": SWIFT, "Option B": PLOVER, "Option C": "", "answer": "B."},
    ],
)
def test_the_right_choice_is_the_answer(tmp_path, more):
    assert read_files(tmp_path, {"a.jsonl": jsonl(QUESTION | more)}).examples == [
        Conversation((Message("user", ASKED), Message("assistant", "B. the plover")))
    ]


@pytest.mark.parametrize("options", [[SWIFT, PLOVER], {"t": 1}, [{"index": 0}], "as text"])
def test_an_answer_in_other_words_is_no_choice(tmp_path, options):
    record = QUESTION | {"options": options, "answer": "Those with long legs."}
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(record)})
    assert [m.content for m in corpus.examples[0].messages] == [
        QUESTION["question"],
        record["answer"],
    ]
    assert corpus.notices == ["a.jsonl: not used: column options"]


@pytest.mark.parametrize(
    "answer",
    ["A, C", "A and C", "AC", ["A", "C"], ["crane", "swift"], [0, 2], "0, 2"],
)
def test_several_right_choices_are_all_of_the_answer(answer):
    choices = Choices({"A": "swift", "B": "plover", "C": "crane"})
    lines, is_number = choices.right(answer)
    assert sorted(lines.split("\n")) == ["A. swift", "C. crane"]
    assert is_number == ("0" in str(answer))


@pytest.mark.parametrize("answer", ["A, D", "AD", ["A", "D"], ["swift", "an ape"]])
def test_several_of_which_one_is_no_choice_are_refused(answer):
    with pytest.raises(Unusable, match="is none of its 3 choices"):
        Choices({"A": "swift", "B": "plover", "C": "crane"}).right(answer)


@pytest.mark.parametrize("answer", ["a" + " " * 400_000 + "b", ["an ape"] * 60_000])
def test_a_long_answer_is_other_words_in_no_time(answer):
    """To look from each space to the last, or through all choices for each, would take hours."""
    choices = Choices({f"label {n}": f"the bird {n}" for n in range(60_000)})
    assert choices.right(answer) == ("", False)


def test_that_numbers_are_counted_from_0_is_told(tmp_path):
    records = [QUESTION | {"choices": [SWIFT, PLOVER], "answer": n} for n in (0, 1)]
    notices = read_files(tmp_path, {"a.jsonl": jsonl(*records)}).notices
    assert notices == ["a.jsonl: answers read as the numbers of choices, counted from 0: 2"]


def test_a_file_that_seems_to_count_from_1_is_refused(tmp_path):
    records = [QUESTION | {"choices": [SWIFT, PLOVER], "answer": n} for n in (1, 2)]
    with pytest.raises(DataError, match="if they count from 1"):
        read_files(tmp_path, {"a.jsonl": jsonl(*records)})


@pytest.mark.parametrize(
    ("choices", "answer", "right"),
    [
        (["8", "2", "24", "120"], 2, "C. 24"),
        (["8", "2", "24", "120"], "2", "B. 2"),
        ([8, 2, 24, 120], 2, "B. 2"),
        (["8", "2", "24", "120"], 24, "C. 24"),
    ],
)
def test_a_number_among_choices_of_digits_is_what_its_type_says(tmp_path, choices, answer, right):
    record = QUESTION | {"choices": choices, "answer": answer}
    (example,) = read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples
    assert example.messages[-1].content == right


def test_a_letter_that_no_choice_has_is_refused():
    with pytest.raises(Unusable, match="its answer C is none of its 2 choices"):
        Choices({"A": SWIFT, "B": PLOVER}).right("C")
