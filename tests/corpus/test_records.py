"""A record becomes the most telling example that its columns allow, or says why not."""

from datetime import date
from typing import Never

import pytest
from support.corpora import read_files, read_named
from support.makers import jsonl

from trainer.corpus.answers import FURTHER_ANSWERS
from trainer.corpus.columns import Columns
from trainer.corpus.examples import (
    LONGEST_FIELD,
    Completion,
    Conversation,
    Message,
    Text,
    Unusable,
)
from trainer.corpus.records import Records
from trainer.errors import DataError


def test_an_empty_system_turn_is_left_out(tmp_path):
    turns = [{"role": "system", "content": ""}, {"role": "assistant", "content": "hi"}]
    corpus = read_named(tmp_path, a_jsonl=jsonl({"messages": turns}))
    assert corpus.examples == [Conversation((Message("assistant", "hi"),))]


GOOD = jsonl(*({"text": f"record {number}"} for number in range(30)))


def turns(*pairs: tuple[str, object]) -> bytes:
    return jsonl({"messages": [{"role": role, "content": content} for role, content in pairs]})


@pytest.mark.parametrize(
    "line, words",
    [
        (b'{"text": "a"', ["bad.jsonl line 31", "broken JSON"]),
        (b"[" * 20_000, ["nested too deep"]),
        (b'{"n": ' + b"9" * 5000 + b', "text": "a"}', ["number that is too long"]),
        (b'"text"', ["the line is text, not an object"]),
        (b'{"text": NaN}', ['"text" is NaN, not text']),
        (b'{"text": [3]}', ['"text" is a list, not text']),
        (b'{"text": {"a": 1}}', ['"text" is an object, not text']),
        (b'{"question": "q", "answer": []}', ['"answer" holds no answer']),
        (b'{"question": "q", "answer": "a", "history": "h"}', ['"history" is text, not a list']),
        (b'{"question": "q", "answer": null}', ['"answer" is null, not text']),
        (
            b'{"question": "q", "reply": "r"}',
            ["question + answer", "it has question, reply", "QLORA_ANSWER_COLUMN"],
        ),
        (b"{}", ["it has no columns"]),
        (b'{"question": "q", "answer": "<think>a"}', ["a thought that never ends"]),
        (b'{"prompt": "q", "completion": " <think>a"}', ["a thought that never ends"]),
        (b'{"text": " \\n"}', ['"text" is empty']),
        (b'{"text": "a\\u0000"}', ["NUL character"]),
        (b'{"text": "a\\ud800"}', ["half a surrogate pair at character 2"]),
        (b'{"messages": "hi"}', ['"messages" is text, not a list']),
        (b'{"messages": ["hi"]}', ['"messages[0]" is text, not an object']),
        (b'{"messages": [{"role": "user"}]}', ['"messages[0]" has no content']),
        (turns(("user", "a")), ["no assistant turn"]),
        (turns(("user", "a"), ("judge", "b")), ['"messages[1].role"', "system, user, assistant"]),
        (turns(("user", "a"), ("assistant", None)), ['"messages[1].content" is null']),
    ],
)
def test_an_unusable_line_is_skipped_with_its_number_and_reason(tmp_path, line, words):
    corpus = read_named(tmp_path, bad_jsonl=GOOD + line.strip() + b"\n")
    assert len(corpus.examples) == 30
    (skip,) = corpus.skipped
    for word in [*words, "bad.jsonl line 31"]:
        assert word in skip


def test_columns_with_names_of_their_own_are_read_when_named(tmp_path):
    files = {
        "a.csv": b"Frage,Antwort,id\nWarum?,Darum,7\n",
        "b.jsonl": jsonl({"Inhalt": "Prosa"}, {"prompt": "p", "completion": "c"}),
    }
    columns = Columns(question="frage", answer="Antwort", text="Inhalt")
    assert read_files(tmp_path, files, columns=columns).examples == [
        Conversation((Message("user", "Warum?"), Message("assistant", "Darum"))),
        Text("Prosa"),
        Completion("p", "c"),
    ]


@pytest.mark.parametrize(
    "record, question, answer",
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n\n1 2", "3"),
        ({"instruction": "Add.", "input": "", "output": "3"}, "Add.", "3"),
        ({"instruction": "Add.", "context": None, "response": "3"}, "Add.", "3"),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "q",
            "a",
        ),
    ],
)
def test_usual_names_of_published_data_are_guessed(tmp_path, record, question, answer):
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(record)})
    assert corpus.examples == [
        Conversation((Message("user", question), Message("assistant", answer)))
    ]


def read_one(record, **given):
    return Records(Columns(**given)).example(record)


def qa(question, answer, *before):
    return Conversation((*before, Message("user", question), Message("assistant", answer)))


@pytest.mark.parametrize(
    "value, text", [(3, "3"), (2.5, "2.5"), (True, "true"), (date(2024, 5, 1), "2024-05-01")]
)
def test_numbers_truth_values_and_dates_are_text(value, text):
    assert read_one({"question": "q", "answer": value}) == qa("q", text)


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["a", "b"], "answer_start": [0, 9]},
        [{"text": "a", "answer_start": 0}, {"text": "b", "answer_start": 9}],
        ["a", "b", "a", "b"],
        {"text": "a"},
    ],
)
def test_the_first_of_several_answers_is_taken_beside_its_context(answers):
    record = {"id": "7", "context": "c", "question": "q", "answers": answers}
    assert read_one(record) == qa("q\n\nc", "a")


def test_answers_behind_the_first_are_counted_in_one_notice(tmp_path):
    records = [{"question": f"q{n}", "answers": ["a", "b", "c", "a"]} for n in range(3)]
    corpus = read_named(tmp_path, a_jsonl=jsonl(*records))
    assert corpus.examples == [qa(f"q{n}", "a") for n in range(3)]
    assert corpus.notices == [f"a.jsonl: {FURTHER_ANSWERS}: 6"]


@pytest.mark.parametrize(
    "answer, text",
    [
        (["First open it.", "Then wait.", ""], "First open it.\nThen wait.\n"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"text": "a"}, "b"], "ab"),
    ],
)
def test_an_answer_of_several_parts_is_all_of_them(answer, text):
    assert read_one({"question": "q", "answer": answer}) == qa("q", text)
    assert read_one({"instruction": "q", "output": answer}) == qa("q", text)


def test_a_part_of_an_answer_that_is_no_text_is_named():
    with pytest.raises(Unusable, match=r'"answer\[1\]" is image_url, not text'):
        read_one({"question": "q", "answer": ["a", {"type": "image_url"}]})


MARKED = [
    {"prompt": "p", "completion": "bad", "label": False},
    {"prompt": [{"role": "user", "content": "u"}], "completion": "bad", "label": "False"},
    {"question": "q", "answer": "bad", "weight": 0},
    {"messages": [{"role": "assistant", "content": "bad"}], "weight": 0.0},
    {"messages": [{"role": "assistant", "content": "bad"}], "label": False},
    {"text": "bad", "weight": "0"},
]


def test_records_marked_as_not_to_be_trained_are_left_out_and_told(tmp_path):
    good = {"prompt": "p", "completion": "good", "label": True, "weight": 1}
    corpus = read_named(tmp_path, a_jsonl=jsonl(good, *MARKED))
    assert corpus.examples == [Completion("p", "good")]
    assert corpus.skipped == []
    assert corpus.notices == [
        "a.jsonl: records that are marked as not to be trained are left out: 6, first line 2"
    ]


def test_a_file_of_nothing_but_such_records_is_named(tmp_path):
    corpus = read_named(tmp_path, a_jsonl=jsonl(*MARKED), good_txt=b"good")
    assert corpus.skipped == [
        "a.jsonl: it holds nothing but records that are marked as not to be trained"
    ]


@pytest.mark.parametrize(
    "mark", [{"answers": {"text": []}}, {"answers": []}, {"answers": "n", "is_impossible": True}]
)
def test_questions_that_have_no_answer_are_left_out_for_a_reason_of_their_own(tmp_path, mark):
    records = {"question": "q", "answers": "a"}, {"question": "r"} | mark
    corpus = read_named(tmp_path, a_jsonl=jsonl(*records))
    assert corpus.examples == [qa("q", "a")]
    assert corpus.skipped == []
    assert corpus.notices == [
        "a.jsonl: questions that it says have no answer are left out: 1, first line 2"
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"user": "q", "assistant": "a"},
        {"human": "q", "assistant": "a"},
        {"chat": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"turns": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"turns": 3, "question": "q", "answer": "a"},
    ],
)
def test_speakers_as_columns_and_other_names_of_turns_are_known(record):
    assert read_one(record) == qa("q", "a")


def test_the_share_that_may_be_skipped_is_named_where_it_helps(tmp_path):
    with pytest.raises(DataError, match="raise QLORA_MAX_SKIPPED_SHARE"):
        read_named(tmp_path, 0.1, a_jsonl=jsonl({"text": "a"}, {"other": "b"}))
    with pytest.raises(DataError) as nothing_left:
        read_named(tmp_path, 0.1, a_jsonl=jsonl({"other": "b"}))
    assert "QLORA_MAX_SKIPPED_SHARE" not in str(nothing_left.value)


def test_the_number_of_a_class_is_no_mark(tmp_path):
    record = {"prompt": "p", "completion": "c", "label": 0, "weight": 2.5}
    corpus = read_named(tmp_path, a_jsonl=jsonl(record))
    assert corpus.examples == [Completion("p", "c")]
    assert corpus.notices == ["a.jsonl: not used: columns label, weight"]


@pytest.mark.parametrize("name", ["system", "system_prompt", "System_Message"])
def test_a_column_of_system_prompts_is_the_first_turn_of_every_kind_of_conversation(name):
    prompt = Message("system", "Be brief.")
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert read_one({"instruction": "q", "output": "a", name: "Be brief."}) == qa("q", "a", prompt)
    assert read_one({"conversations": turns, name: "Be brief."}) == qa("q", "a", prompt)
    assert read_one({"prompt": "q", "completion": "a", name: "Be brief."}) == qa("q", "a", prompt)
    assert read_one({"instruction": "q", "output": "a", name: ""}) == qa("q", "a")


def test_a_column_of_system_prompts_that_is_not_used_is_told(tmp_path):
    turns = [{"role": "system", "content": "own"}, {"role": "assistant", "content": "a"}]
    corpus = read_named(
        tmp_path,
        a_jsonl=jsonl(
            {"messages": turns, "system": "other"},
            {"messages": turns, "system": "own"},
            {"messages": turns[1:], "system": "other"},
        ),
    )
    assert corpus.notices == [
        'a.jsonl: not used: column "system" in records with a system turn of their own: 1'
    ]


ASKED, CHOSEN, REJECTED = (
    [{"role": role, "content": words}]
    for role, words in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)


@pytest.mark.parametrize(
    "record, advice, given",
    [
        (
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            "set QLORA_ANSWER_COLUMN=chosen",
            "answer",
        ),
        ({"chosen": "q a", "rejected": "q b"}, "set QLORA_TEXT_COLUMN=chosen", "text"),
        (
            {"prompt": "q", "chosen": ASKED + CHOSEN, "rejected": ASKED + REJECTED},
            "rename chosen to messages",
            "",
        ),
        (
            {"prompt": ASKED, "chosen": CHOSEN, "rejected": REJECTED},
            "rename chosen to completion",
            "",
        ),
    ],
)
def test_preference_data_is_refused_with_what_works(record, advice, given):
    with pytest.raises(Unusable, match=f"is preference data.*{advice}$"):
        read_one(record)
    if given:
        found = read_one(record, **{given: "chosen"})
    else:
        found = read_one({advice.split()[-1]: record["chosen"], **record})
    assert found == (Text("q a") if given == "text" else qa("q", "a"))


def test_a_system_turn_goes_before_the_column():
    turns = [{"role": "system", "content": "own"}, {"role": "assistant", "content": "a"}]
    found = read_one({"messages": turns, "system": "other"})
    assert [m.content for m in found.messages] == ["own", "a"]


@pytest.mark.parametrize(
    "history",
    [
        [["q1", "a1"]],
        [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}],
        '[["q1", "a1"]]',
    ],
)
def test_earlier_rounds_stand_before_the_question(history):
    found = read_one({"instruction": "q", "input": "", "output": "a", "history": history})
    assert found == qa("q", "a", Message("user", "q1"), Message("assistant", "a1"))


def test_turns_of_a_prompt_are_given_and_those_of_a_completion_trained():
    prompt = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "q"},
    ]
    completion = [{"role": "assistant", "content": "a"}]
    expected = Conversation(
        (
            Message("system", "s"),
            Message("assistant", "Hello", trained=False),
            Message("user", "q"),
            Message("assistant", "a"),
        )
    )
    assert read_one({"prompt": prompt, "completion": completion}) == expected
    assert read_one({"prompt": "q", "completion": completion}) == qa("q", "a")


def test_columns_that_the_user_names_go_before_every_other_form():
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]
    record = {"messages": turns, "prompt": "p", "completion": "c", "q": "q", "reply": "a"}
    assert read_one(record) == qa("u", "v")
    assert read_one(record, question="q", answer="reply") == qa("q", "a")
    assert read_one(record | {"body": "words"}, text="body") == Text("words")


def test_a_column_is_used_once():
    record = {"input": "Capital of Ruritania?", "output": "Strelsau"}
    expected = qa("Capital of Ruritania?", "Strelsau")
    assert read_one(record, question="input", answer="output") == expected
    assert read_one(record) == expected


@pytest.mark.parametrize(
    "columns", ["Frage,Antwort", "Q,A", "Question:,Answer:", "otázka,odpověď", "вопрос,ответ"]
)
def test_headers_in_other_languages_and_short_ones_are_known(tmp_path, columns):
    corpus = read_named(tmp_path, a_csv=f"{columns}\nq1,a1\n".encode())
    assert corpus.examples == [qa("q1", "a1")]


def test_columns_that_hold_something_and_are_not_used_are_named_once(tmp_path):
    record = {"question": "q", "answer": "a", "source": "s", "note": " ", "tags": None, "id": 7}
    corpus = read_named(
        tmp_path, a_jsonl=jsonl(record, record | {"question": "r"}), b_jsonl=jsonl(record)
    )
    assert corpus.notices == ["a.jsonl: not used: columns source, id"]
    made = record | {"section": "A", "passage": "k", "made_by": "model"}  # as `prepare` writes them
    assert read_named(tmp_path, a_jsonl=jsonl(made)).notices == ["a.jsonl: not used: column id"]


def test_a_column_without_a_value_makes_no_form_where_another_is_whole():
    assert read_one({"messages": None, "text": "words"}) == Text("words")


def test_leading_spaces_of_an_answer_stay():
    assert read_one({"question": "q", "answer": "    if x:\n"}) == qa("q", "    if x:\n")


def test_a_column_that_the_user_named_and_no_record_has_is_told(tmp_path):
    records = jsonl({"text": "what happened"}, {"text": "and then", "Frage": "q", "answer": "a"})
    for question, told in (
        ("frage", []),
        ("why", ["a.jsonl: no record has why, the column that QLORA_QUESTION_COLUMN names"]),
    ):
        corpus = read_files(tmp_path, {"a.jsonl": records}, columns=Columns(question))
        assert [n for n in corpus.notices if "names" in n] == told


LONG = "a" * (LONGEST_FIELD + 1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"question": LONG, "answer": "b"}, '"question" is longer than 2 Mi characters'),
        ({"prompt": "a", "completion": LONG}, '"completion" is longer than 2 Mi characters'),
        (
            {"messages": [{"role": "assistant", "content": LONG[: 1 << 20]}] * 3},
            '"messages" is longer than 2 Mi characters',
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}] * 1001},
            '"messages" holds more than 1,000 turns',
        ),
        ({"text": LONG * 9}, '"text" is longer than 16 Mi characters'),
    ],
)
def test_what_no_memory_could_take_is_named(record, reason):
    with pytest.raises(Unusable, match=reason):
        Records(Columns()).example(record)


def test_a_document_in_a_record_may_be_a_long_one():
    assert Records(Columns()).example({"text": LONG}) == Text(LONG)


def test_lines_end_in_a_newline_alone():
    assert read_one({"question": "a\r\nb", "answer": "c\rd"}) == qa("a\nb", "c\nd")


@pytest.mark.parametrize("weight", [0.5, "0.5"])
def test_half_a_weight_is_refused_with_what_to_do(tmp_path, weight):
    record = {"question": "q", "answer": "a", "weight": weight}
    with pytest.raises(DataError, match=r"0\.5: a record is trained \(1\) or not \(0\); rename"):
        read_files(tmp_path, {"a.jsonl": jsonl(record)})


@pytest.mark.parametrize("weight", [1, "1.00", 1.0])
def test_a_weight_of_one_is_used_however_it_is_written(tmp_path, weight):
    record = {"question": "q", "answer": "a", "weight": weight}
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(record)})
    assert (corpus.examples, corpus.notices) == ([qa("q", "a")], [])


def test_a_record_does_not_ask_for_all_columns_of_those_before() -> None:
    """Where each names another, that would take hours."""

    class Unwalked(dict[str, None]):
        def __iter__(self) -> Never:
            raise AssertionError("all of them were asked for")

        keys = items = values = __iter__

    records = Records(Columns())
    records.unused = Unwalked()
    for number in range(100):
        records.example({"question": "q", "answer": "a", f"x{number}": 1})
    assert len(records.unused) == 100 and "x99" in records.unused
