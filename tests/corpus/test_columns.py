"""Columns are known by their names, and a form is taken where all it needs is there."""

import pytest

from trainer.corpus.columns import FORMS, GUESSES, Columns, fits, layouts


def test_every_form_is_of_roles_that_have_names():
    roles = {role for form, optional in FORMS.items() for role in (*form, *optional)}
    assert roles == set(GUESSES)


def test_names_are_compared_without_case_and_what_surrounds_them():
    (layout,) = layouts([" Question: ", "ANSWER"], Columns())
    assert layout.names == {"question": " Question: ", "answer": "ANSWER"}


@pytest.mark.parametrize(
    "names, form",
    [
        (["text", "question", "answer"], ("question", "answer")),
        (["prompt", "completion", "question", "answer"], ("prompt", "completion")),
        (["prompt", "response"], ("question", "answer")),
        (["messages", "prompt", "completion"], ("messages",)),
    ],
)
def test_the_most_telling_form_comes_first(names, form):
    assert layouts(names, Columns())[0].form == form


def test_where_named_columns_are_there_no_other_form_is_thought_of():
    found = layouts(["messages", "body"], Columns(text="body"))
    assert [layout.form for layout in found] == [("text",)]
    assert layouts(["messages"], Columns(text="body"))[0].form == ("messages",)


def test_a_record_without_a_form_is_told_which_settings_name_columns():
    assert not fits(["id", "reply"], Columns())
    words = Columns(question="ask").wanted(["id", "reply"])
    assert "ask + answer" in words and "it has id, reply" in words
    assert "QLORA_QUESTION_COLUMN" in words and "QLORA_TEXT_COLUMN" in words


def test_a_dialogue_that_was_chosen_is_no_text_to_train_on():
    said = "\n\nHuman: Which?\n\nAssistant: A plover."
    advice = Columns().preferred({"chosen": said, "rejected": said})
    assert "as messages" in advice and "QLORA_TEXT_COLUMN" not in advice
    plain = Columns().preferred({"chosen": "A plover.", "rejected": "A gull."})
    assert plain.endswith("set QLORA_TEXT_COLUMN=chosen")
