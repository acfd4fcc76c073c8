"""A table with one turn a row is a table of conversations, where it says which rows are one."""

import pytest
from support.corpora import read_files, read_named
from support.makers import jsonl

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Message, NextTable, Text
from trainer.corpus.turn_rows import joined
from trainer.errors import DataError


def conversation(*turns):
    return Conversation(tuple(Message(*turn) for turn in turns))


FIRST = conversation(("user", "a"), ("assistant", "b"))
SECOND = conversation(("user", "c"), ("assistant", "d"))
SAID = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))


@pytest.mark.parametrize(
    "name, content",
    [
        (
            "a.csv",
            b"conversation_id,role,content\nx,user,a\nx,assistant,b\ny,user,c\ny,assistant,d\n",
        ),
        (
            "a.csv",
            b"session,speaker,message\nx,human,a\nx,gpt,b\ny,human,c\ny,gpt,d\n",
        ),
        (
            "a.jsonl",
            jsonl(
                *(
                    {"dialog": n // 2, "turn": 2 - n % 2, "role": role, "content": words}
                    for n, (role, words) in enumerate((SAID[1], SAID[0], SAID[3], SAID[2]))
                )
            ),
        ),
        (
            "a.jsonl",
            jsonl(*({"turn": n % 2, "from": r, "value": w} for n, (r, w) in enumerate(SAID))),
        ),
    ],
    ids=["id", "speakers", "id and turn", "turn"],
)
def test_rows_of_one_conversation_are_one_record(tmp_path, name, content):
    assert read_files(tmp_path, {name: content}).examples == [FIRST, SECOND]


def test_a_system_turn_begins_a_conversation(tmp_path):
    turns = [("system", "s"), *SAID[:2], ("system", "s"), *SAID[2:]]
    rows = ({"role": role, "content": words} for role, words in turns)
    assert read_files(tmp_path, {"a.jsonl": jsonl(*rows)}).examples == [
        conversation(*turns[:3]),
        conversation(*turns[3:]),
    ]


@pytest.mark.parametrize(
    "rows, reason",
    [
        ([{"role": r, "content": w} for r, w in SAID], "add a column conversation_id"),
        (
            [{"chat_id": n % 2, "role": r, "content": w} for n, (r, w) in enumerate(SAID)],
            "do not stand together; sort the rows by that column",
        ),
    ],
)
def test_rows_that_could_be_any_conversation_are_refused(tmp_path, rows, reason):
    with pytest.raises(DataError, match=reason):
        read_files(tmp_path, {"a.jsonl": jsonl(*rows)})


def test_a_conversation_beside_a_broken_row_is_skipped(tmp_path):
    rows = [
        {"chat_id": n // 2, "role": role, "content": words}
        for n, (role, words) in enumerate((*SAID[:2], ("user", "x"), ("assistant", "y"), *SAID[2:]))
    ]
    content = jsonl(*rows[:3]) + b"{broken\n" + jsonl(*rows[3:])
    corpus = read_named(tmp_path, a_jsonl=content)
    assert corpus.examples == [FIRST, SECOND]
    assert [reason.split(":")[0] for reason in corpus.skipped] == [
        *("a.jsonl line 4", "a.jsonl line 3"),
    ]


def test_a_role_that_nobody_has_in_a_conversation_makes_no_turn(tmp_path):
    record = {"role": "Engineer", "content": "You build bridges."}
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [Text(record["content"])]


NEWEST_FIRST = [(SAID[at], at) for at in (1, 0, 3, 2)]


@pytest.mark.parametrize(
    "place",
    [
        lambda at: {"timestamp": f"2024-01-02T10:0{at}"},
        lambda at: {"created_at": 1_700_000_000 + at},
        lambda at: {"date": "02.01.2024", "time": f"10:0{at}"},
        lambda at: {"index": at},
        lambda at: {"index": 9 - at, "sent": f"1/2/2024 10:0{at} AM"},
    ],
    ids=["timestamp", "epoch", "date and time", "index", "sent"],
)
def test_turns_are_in_the_order_in_which_they_were_said(tmp_path, place):
    rows = (
        {"ticket": at // 2, "role": role, "content": words} | place(at)
        for (role, words), at in NEWEST_FIRST
    )
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(*rows)})
    assert corpus.examples == [FIRST, SECOND]
    assert [notice for notice in corpus.notices if "index" not in notice] == []


def test_a_time_that_cannot_be_read_is_told(tmp_path):
    rows = [
        {"ticket": 1, "role": role, "content": words, "date": "last week"}
        for role, words in SAID[:2]
    ]
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(*rows)})
    assert corpus.examples == [FIRST]
    assert corpus.notices == [
        "a.jsonl: turns are taken in the order of their rows, since date holds what is neither a "
        "number nor a time that can be read, first in the conversation of line 1"
    ]


def test_a_row_that_no_conversation_has_is_named(tmp_path):
    content = b"ticket,role,content\n1,user,a\n,assistant,b\n"
    with pytest.raises(DataError, match="line 3 has no ticket, which says which rows are one"):
        read_files(tmp_path, {"a.csv": content})


def test_customers_and_agents_are_the_speakers_of_a_support_desk(tmp_path):
    content = b"ticket,sender,message\nx,customer,a\nx,agent,b\n"
    assert read_files(tmp_path, {"a.csv": content}).examples == [FIRST]


@pytest.mark.parametrize("is_first", [True, False])
def test_each_table_of_a_file_is_one_of_turns_or_not(is_first):
    turns = [
        (f"row {n}", {"session": 1, "role": role, "content": words})
        for n, (role, words) in enumerate(SAID[:2])
    ]
    records = [("row 7", {"question": "c", "answer": "d"})]
    one, two = (turns, records) if is_first else (records, turns)
    found = [row[1] for row in joined([*one, NextTable(), *two, NextTable()], Columns())]
    assert sorted(map(list, found)) == [["messages"], ["question", "answer"]]
