"""`prepare`: what a model writes about documents becomes records, or is left out with a reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.jobs import run_command, variables, write_records

from trainer.commands import prepare
from trainer.commands.prepare import Pair
from trainer.dataset.inputs import fetch_inputs, reader_of
from trainer.errors import DataError
from trainer.inference.reply import Reply
from trainer.settings import Settings

PASSAGE = (
    "The warranty of the HG-200 lasts three years. It covers the motor, the fan and the lid. "
    "Batteries are sold apart; the shop in Łódź keeps them at 18 °C."
)
ANSWERS = ["three years", "the motor, the fan and the lid"]
REPLY = (
    f"Q: How long does the warranty last?\nA: {ANSWERS[0]}\n"
    f"Q: What does the warranty cover?\nA: {ANSWERS[1]}."
)


def pairs(text: str, stopped: bool = True) -> list[tuple[str, str]]:
    return [(p.question, p.answer) for p in prepare.pairs_of(Reply(text, stopped))]


@pytest.mark.parametrize(
    "text",
    [
        "Q: Why is it so?\nA: for a reason",
        "Sure! Here is one:\n\n1. **Q:** Why is it so?\n   **A:** for a reason\n\nI hope it helps.",
        "Question 1: Why is it so?\n\nAnswer 1: for a reason",
        '- Q. "Why is it so?"\n- A. “for a reason”',
    ],
)
def test_pairs_are_read_in_the_forms_that_models_write(text: str) -> None:
    assert pairs(text) == [("Why is it so?", "for a reason")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Why is it so? For a reason.",
        "Q: Why is it so?\nQ: And why else?",
        "A: for a reason\nQ: Why is it so?",
        "Q: Why is it so?\nThat is hard to say.\nA: for a reason",
        "Q:\nA:",
    ],
)
def test_what_is_no_pair_gives_none(text: str) -> None:
    assert pairs(text) == []


def test_the_last_answer_of_a_reply_that_was_cut_off_is_left_out() -> None:
    assert len(pairs(REPLY)) == 2
    assert [answer for _, answer in pairs(REPLY, stopped=False)] == ANSWERS[:1]


@pytest.mark.parametrize(
    "answer", [*ANSWERS, "Three Years.", "the motor,  the\nfan", "Łódź", "18 °C"]
)
def test_an_answer_that_stands_in_the_passage_is_kept(answer: str) -> None:
    assert prepare.why_unusable(Pair("What is it about, then?", answer), PASSAGE) is None


@pytest.mark.parametrize(
    "question, answer, reason",
    [
        ("How long does it last?", "four years", "answer not in the passage"),
        ("How long does it last?", "year", "answer not in the passage"),
        ("How long does it last?", "G-200", "answer not in the passage"),
        ("How long does it last?", "...", "no answer"),
        ("How long does it last?", PASSAGE * 3, "answer too long"),
        ("It lasts three years", "three years", "no question"),
        ("How long?", "three years", "no question"),
        ("Does it last three years?", "three years", "answer in the question"),
    ],
)
def test_what_cannot_be_trained_on_is_left_out_with_its_reason(
    question: str, answer: str, reason: str
) -> None:
    assert prepare.why_unusable(Pair(question, answer), PASSAGE) == reason


# -- the command --------------------------------------------------------------------------


def written_by(monkeypatch: pytest.MonkeyPatch, reply: Callable[[str], str]) -> list[str]:
    """`reply` stands in for what a model of 7B would write; the requests it was given."""
    asked: list[str] = []

    def ask(requests: list[str]) -> list[Reply]:
        asked.extend(requests)
        return [Reply(reply(request), True) for request in requests]

    monkeypatch.setattr(prepare, "_asker", lambda *_: ask)
    return asked


def make(folder: Path, **changes: str) -> list[dict[str, Any]]:
    settings = Settings.read({}, variables(folder, **changes))
    assert prepare.prepare_questions(settings) > 0
    lines = (folder / "out" / "questions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write_documents(folder: Path, count: int = 2) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for n in range(count):
        text = f"# Manual {n}\n\n## Warranty\n\n{PASSAGE} It is part {n} of the set."
        (folder / "data" / f"manual-{n}.md").write_text(text)


def test_records_say_where_they_come_from_and_train_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path)
    write_records(tmp_path / "data" / "known.jsonl")
    asked = written_by(
        monkeypatch, lambda r: f"{REPLY}\nQ: Which part is it?\nA: part {r.count('part 1')}"
    )
    records = make(tmp_path)
    assert len(asked) == 2 and PASSAGE in asked[0] and "Manual 0" in asked[0]
    assert [r["answer"] for r in records] == [ANSWERS[0], f"{ANSWERS[1]}.", "part 0"]
    assert {r["source"] for r in records} == {"manual-0.md"}
    assert all(r["made_by"].startswith("builtin:tiny") and r["passage"] for r in records)

    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "out", tmp_path / "data")
    settings = Settings.read({}, variables(tmp_path))
    found = [example for _, example in reader_of(settings, fetch_inputs(settings).data)]
    assert [[m.content for m in e.messages] for e in found] == [  # type: ignore[union-attr]
        [r["question"], r["answer"]] for r in records
    ]


def test_a_later_start_asks_about_new_passages_only_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path, 20)
    asked = written_by(monkeypatch, lambda r: f"Q: What is it that {len(r)} says?\nA: three years")
    monkeypatch.setattr(prepare, "_AT_ONCE", 4)

    def fails_late(requests: list[str]) -> list[Reply]:
        if len(asked) >= 8:
            raise RuntimeError("the node is gone")
        asked.extend(requests)
        return [Reply(REPLY, True) for _ in requests]

    with monkeypatch.context() as broken:
        broken.setattr(prepare, "_asker", lambda *_: fails_late)
        with pytest.raises(RuntimeError):
            make(tmp_path)
    assert len(asked) == 8 and not (tmp_path / "out" / "questions.jsonl").exists()
    (replies,) = (tmp_path / "scratch" / "questions").glob("*/replies.jsonl")
    replies.write_bytes(replies.read_bytes()[:-10])  # a kill in the middle of a line
    records = make(tmp_path)
    assert len(asked) == 8 + 13 and len(set(asked)) == 20
    write_documents(tmp_path, 21)
    assert make(tmp_path)[: len(records)] == records and len(asked) == 8 + 13 + 1


def test_a_share_of_the_records_asks_what_the_documents_do_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path, 6)
    written_by(monkeypatch, lambda r: f"Q: How good is the HG-{len(r)}{r[-12:]}?\nA: three years")
    records = make(tmp_path, REFUSAL="Ask the shop.", REFUSAL_SHARE="0.5")
    refused = [r for r in records if r["answer"] == "Ask the shop."]
    assert 2 * len(refused) == len(records) and records[-len(refused) :] == refused
    assert all(r["made_by"] and r["question"].endswith(("?", ".")) for r in refused)


@pytest.mark.s3
@pytest.mark.parametrize("bucket", ["http"], indirect=True)
def test_documents_and_records_may_be_in_a_bucket(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by(monkeypatch, lambda _: REPLY)
    bucket.put_object(Key="corpus/manual.txt", Body=PASSAGE.encode())
    uri = f"s3://{bucket.name}/"
    settings = Settings.read(
        {}, variables(tmp_path, DATA_URI=f"{uri}corpus/", OUTPUT_URI=f"{uri}asked/")
    )
    assert prepare.prepare_questions(settings) == 2
    lines = bucket.Object("asked/questions.jsonl").get()["Body"].read().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["manual.txt"] * 2


def test_records_alone_are_nothing_to_ask_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by(monkeypatch, lambda _: REPLY)
    with pytest.raises(DataError, match=r"no document of .* records can be trained as they are"):
        make(tmp_path)


def test_the_built_in_model_knows_no_questions_and_it_says_what_would(tmp_path: Path) -> None:
    write_documents(tmp_path)
    done = run_command(tmp_path, "prepare")
    assert done.returncode == DataError.exit_code, done.stderr
    assert "no usable question and answer for 2 passages" in done.stderr
    assert "QLORA_BASE_MODEL" in done.stderr and not list((tmp_path / "out").glob("*"))
