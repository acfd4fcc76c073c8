"""A judge by URL scores answers against references; whatever it does, the run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import chat_server
from support.jobs import run_command

from trainer.chat_api import Completion
from trainer.dataset.eval_questions import Question
from trainer.errors import DataError
from trainer.evaluation.compare import Evaluation, Judgement, Scores
from trainer.evaluation.judge import judge, score_of
from trainer.settings import Settings

ASKED = tuple(Question(f"What is {n}?", f"It is {n}.") for n in range(6))
EVALUATION = Evaluation(
    Scores(answers=("I do not know.",) * 6),
    Scores(answers=(*(q.answer for q in ASKED[:5]), "no")),
    ASKED,
)


def grade(task: str) -> str:
    """As a careful grader would: 1 where reference and answer say the same."""
    reference, answer = (
        task.partition(f"<{name}>\n")[2].partition(f"\n</{name}>")[0]
        for name in ("reference", "answer")
    )
    return "1" if reference == answer else "0"


def judged(url: str, evaluation: Evaluation = EVALUATION, minutes: str = "1") -> Evaluation:
    given = {"JUDGE_URL": url, "JUDGE_MODEL": "grader", "STORAGE_RETRY_MINUTES": minutes}
    settings = Settings.read({}, {f"QLORA_{n}": v for n, v in given.items()}, trains=False)
    return judge(evaluation, settings)


def test_the_answers_of_both_models_are_scored_against_the_references() -> None:
    with chat_server(write=grade) as server:
        found = judged(server.url)
    assert (found.base.judge, found.tuned.judge) == (0.0, pytest.approx(5 / 6))
    assert found.judgement is not None and found.judgement.model.startswith("grader at 127.0.0.1:")
    assert (found.judgement.questions, found.judgement.failure) == (6, None)
    tasks = [body["messages"][-1]["content"] for body in server.seen]
    assert sum("What is 3?" in task and "It is 3." in task for task in tasks) == 2


def test_without_a_judge_nothing_is_asked() -> None:
    settings = Settings.read({}, {}, trains=False)
    assert judge(EVALUATION, settings) is EVALUATION


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("1", 1.0),
        ("0.75", 0.75),
        ('{"score": 0.5}', 0.5),
        ("<think>0.2, or rather 1</think>\n\n0.9", 0.9),
        ("The score is 0.", 0.0),
        ("Score: 1.0", 1.0),
        ("10", None),
        ("I cannot say.", None),
        ("", None),
    ],
)
def test_a_score_is_the_last_number_from_0_to_1(text: str, score: float | None) -> None:
    assert score_of(Completion(text, whole=True)) == score


def test_half_an_answer_and_a_refusal_are_no_score() -> None:
    assert score_of(Completion("1", whole=False)) is None
    assert score_of(DataError("filtered")) is None


def test_a_question_counts_when_both_answers_to_it_were_judged() -> None:
    def write(task: str) -> str:
        return "no idea" if "What is 2?" in task and "do not know" in task else grade(task)

    with chat_server(write=write) as server:
        found = judged(server.url)
    assert found.judgement is not None
    assert (found.judgement.questions, found.judgement.failure) == (5, "it gave no score")
    assert found.tuned.judge == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [(401, "set OPENAI_API_KEY"), (500, "answers 500"), (404, "see whether QLORA_JUDGE_URL")],
)
def test_a_judge_that_fails_is_a_sentence_and_no_score(
    trouble: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with chat_server(troubles=[trouble] * 99) as server:
        found = judged(server.url, minutes="0")
    assert (found.base.judge, found.tuned.judge) == (None, None)
    assert found.judgement is not None and words in str(found.judgement.failure)
    assert f"0 of 6 questions were judged: {found.judgement.failure}" in caplog.text


def test_a_judge_at_a_cloud_s_metadata_is_not_asked() -> None:
    found = judged("http://169.254.169.254/v1")
    assert found.judgement is not None and "link-local" in str(found.judgement.failure)


def test_the_run_names_its_judge_in_record_report_and_card_and_never_the_key(
    tmp_path: Path,
) -> None:
    key = "sk-not-for-anybody-to-see"
    with chat_server(write=grade, key=key) as server:
        done = run_command(
            tmp_path,
            environment={"OPENAI_API_KEY": key},
            JUDGE_URL=server.url,
            JUDGE_MODEL="grader",
        )
    assert done.returncode == 0, done.stderr
    (run,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    record: dict[str, Any] = json.loads((run / "run.json").read_text())
    judgement = Judgement(**record["evaluation"]["judge"])
    assert judgement.failure is None and judgement.questions == record["evaluation"]["questions"]
    assert record["evaluation"]["tuned"]["judge"] == record["evaluation"]["tuned"]["exact"]
    assert judgement.model in (run / "report.html").read_text()
    assert f"The judge was {judgement.model}" in (run / "adapter" / "README.md").read_text()
    published = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert key not in done.stdout + done.stderr and key.encode() not in published


def test_a_judge_that_is_not_there_ends_a_run_before_it_trains(tmp_path: Path) -> None:
    with chat_server() as server:
        pass
    done = run_command(tmp_path, JUDGE_URL=server.url, JUDGE_MODEL="grader")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "see whether QLORA_JUDGE_URL is right" in done.stderr
    assert '"step"' not in done.stdout


def test_a_judge_that_fails_afterwards_does_not_fail_a_run(tmp_path: Path) -> None:
    def refuses(body: dict[str, Any]) -> str | None:
        return "filtered" if "<answer>" in body["messages"][-1]["content"] else None

    with chat_server(refuses=refuses) as server:
        done = run_command(tmp_path, JUDGE_URL=server.url, JUDGE_MODEL="grader")
    assert done.returncode == 0, done.stderr
    assert "questions were judged: " in done.stdout
    (run,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert json.loads((run / "run.json").read_text())["evaluation"]["judge"]["questions"] == 0
