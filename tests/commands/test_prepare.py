"""`prepare`: documents become records that train as they are, or it is said why not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import chat_server
from support.jobs import run_command, variables, write_records
from support.taught import QUESTIONS, teach, write_machines

from trainer.commands.prepare import prepare_questions
from trainer.dataset.domain import Domain
from trainer.dataset.inputs import fetch_inputs, reader_of
from trainer.errors import DataError, NotAllowedError
from trainer.settings import Settings

EACH = sum(map(len, QUESTIONS.values()))  # questions of a machine
KEY = "sk-not-for-anybody-to-see"


def make(folder: Path, url: str, **changes: str) -> list[dict[str, Any]]:
    taught = {"TEACHER_URL": url, "TEACHER_MODEL": "big", "STORAGE_RETRY_MINUTES": "0"}
    settings = Settings.read({}, variables(folder, **taught | {"REFUSAL_SHARE": "0"} | changes))
    number = prepare_questions(settings).records
    lines = (folder / "out" / "questions.jsonl").read_text().splitlines()
    assert number == len(lines)
    return [json.loads(line) for line in lines]


def test_records_say_where_they_come_from_and_train_as_they_are(tmp_path: Path) -> None:
    write_machines(tmp_path / "data")
    (tmp_path / "data" / "list.txt").write_text(
        "- flour\n- a Zestrum C4\n"
    )  # too short to ask about
    write_records(tmp_path / "data" / "known.jsonl")
    with chat_server(write=teach) as server:
        records = make(tmp_path, server.url)
    assert len(records) == 2 * EACH
    assert {r["source"] for r in records} == {"machine-0.md", "machine-1.md"}
    assert {r["section"] for r in records} == {"Nora X1", "Nora X2"}
    assert all(r["made_by"].startswith("big at 127.0.0.1") and r["passage"] for r in records)
    summary = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert summary["coverage"] == 1 and summary["questions"] == len(records)
    assert "big at" in (tmp_path / "out" / "prepare.html").read_text()
    domain = Domain.read(tmp_path / "out")
    assert domain is not None and domain.refuses("How heavy is the Nora X9?")
    assert not any(domain.refuses(r["question"]) for r in records)
    assert not domain.refuses("What is a Zestrum C4?")

    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "out", tmp_path / "data")
    settings = Settings.read({}, variables(tmp_path))
    found = [example for _, example in reader_of(settings, fetch_inputs(settings).data)]
    assert [[m.content for m in e.messages] for e in found] == [  # type: ignore[union-attr]
        [r["question"], r["answer"]] for r in records
    ]


def test_what_nothing_is_asked_about_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_machines(tmp_path / "data", 1)
    with (tmp_path / "data" / "machine-0.md").open("a") as file:
        file.write("\n| part | price |\n|---|---|\n| lid | 3 euros |\n\n- a spring\n")
    (tmp_path / "data" / "short.txt").write_text("Closed on Sundays.")
    with chat_server(write=teach) as server, caplog.at_level("WARNING"):
        make(tmp_path, server.url)
    (said,) = [message for message in caplog.messages if message.startswith("nothing is asked")]
    assert "short.txt: no passage of 80 characters of its own; nor about 3 rows" in said
    summary = json.loads((tmp_path / "out" / "prepare.json").read_text())
    lines = ["| part | price |", "| lid | 3 euros |", "a spring"]
    assert summary["not_asked_about"] == {
        "files": ["short.txt"],
        "lines": 3,
        "examples": [{"line": line, "source": "machine-0.md"} for line in lines],
    }


def test_a_later_start_asks_about_new_passages_only_and_ends_the_same(tmp_path: Path) -> None:
    write_machines(tmp_path / "data", 3)
    with chat_server(write=teach, troubles=[429, 401]) as server:
        with pytest.raises(NotAllowedError):
            make(tmp_path, server.url, STORAGE_RETRY_MINUTES="1")
        assert not (tmp_path / "out" / "questions.jsonl").exists()
        records = make(tmp_path, server.url)
        assert len(records) == 3 * EACH
        assert len(server.seen) == 3 * 4 + 2  # one for each trouble
        write_machines(tmp_path / "data", 4)
        assert make(tmp_path, server.url)[: len(records)] == records
        assert len(server.seen) == 4 * 4 + 2


def test_a_share_of_the_records_asks_what_the_documents_do_not_say(tmp_path: Path) -> None:
    write_machines(tmp_path / "data")
    with chat_server(write=teach) as server:
        records = make(tmp_path, server.url, REFUSAL="Ask the shop.", REFUSAL_SHARE="0.5")
    refused = [r for r in records if r["answer"] == "Ask the shop."]
    assert 2 * len(refused) == len(records) and records[-len(refused) :] == refused
    summary = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert summary["questions"] == summary["questions_refused"] == len(refused)


def test_records_get_other_wordings_with_their_own_answers_in_their_own_columns(
    tmp_path: Path,
) -> None:
    said = [f"The Nora X{n} costs {n}0 euros without delivery." for n in (1, 2)]
    records = [{"frage": f"How much is the Nora X{n + 1}?", "satz": a} for n, a in enumerate(said)]
    write_records(tmp_path / "data" / "known.jsonl", records)
    columns = {"QUESTION_COLUMN": "frage", "ANSWER_COLUMN": "satz", "PREPARE": "wordings"}
    with chat_server(write=teach) as server:
        found = make(tmp_path, server.url, **columns)
    assert {r["satz"] for r in found} == set(said)
    assert {r["frage"] for r in found if "X1" in r["satz"]} == {
        question.format(name="Nora X1") for question in QUESTIONS["costs"]
    }


def test_the_key_is_sent_and_never_shown(tmp_path: Path) -> None:
    write_machines(tmp_path / "data", 1)
    with chat_server(write=teach, key=KEY) as server:
        done = run_command(
            tmp_path,
            "prepare",
            environment={"OPENAI_API_KEY": KEY},
            TEACHER_URL=server.url,
            TEACHER_MODEL="big",
        )
        assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert KEY not in done.stdout + done.stderr
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert "at most 4 requests" in done.stderr + done.stdout


@pytest.mark.s3
@pytest.mark.parametrize("bucket", ["http"], indirect=True)
def test_documents_and_records_may_be_in_a_bucket(bucket: Any, tmp_path: Path) -> None:
    write_machines(tmp_path / "made", 1)
    (document,) = (tmp_path / "made").iterdir()
    bucket.put_object(Key="corpus/manual.md", Body=document.read_bytes())
    uri = f"s3://{bucket.name}/"
    with chat_server(write=teach) as server:
        changes = {"TEACHER_URL": server.url, "TEACHER_MODEL": "big", "REFUSAL_SHARE": "0"}
        places = {"DATA_URI": f"{uri}corpus/", "OUTPUT_URI": f"{uri}asked/"}
        settings = Settings.read({}, variables(tmp_path, **changes, **places))
        assert prepare_questions(settings).records == EACH
    lines = bucket.Object("asked/questions.jsonl").get()["Body"].read().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["manual.md"] * EACH


def test_records_alone_are_nothing_to_ask_about(tmp_path: Path) -> None:
    said = r"no document of .* records can be trained as they are"
    with chat_server() as server, pytest.raises(DataError, match=said):
        make(tmp_path, server.url)


def test_the_built_in_model_knows_no_questions_and_it_says_what_would(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    text = (
        "A fan that turns has three blades of steel. The lid of it is closed by a spring, always."
    )
    (tmp_path / "data" / "fan.txt").write_text(text)
    for start in range(2):
        done = run_command(tmp_path, "prepare")
        assert done.returncode == DataError.exit_code, done.stderr
        assert "found nothing to ask about in 2 statements: a base model asks" in done.stderr
        assert "QLORA_TEACHER_URL" in done.stderr and not list((tmp_path / "out").glob("*"))
        known = "an earlier start asked about 1 passage" in done.stdout + done.stderr
        assert known == bool(start)
