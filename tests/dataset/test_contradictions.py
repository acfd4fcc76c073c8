"""Questions with different answers are counted, and two of their records named."""

from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import prepare


def test_questions_with_different_answers_are_told_with_two_of_their_records(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = [
        {"question": QUESTIONS[4]["question"].upper(), "answer": "something else altogether"},
        {"question": QUESTIONS[4]["question"], "answer": "a third thing"},
    ]
    write_records(tmp_path / "data" / "a.jsonl", QUESTIONS[:20])
    write_records(tmp_path / "data" / "b.jsonl", other)
    counts = prepare(tmp_path, tokenizer).counts
    assert counts["contradicted"] == 1
    places = counts["contradicted_first"]
    assert len(set(places)) == 2
    assert set(places) < {"record 5 of a.jsonl", "record 1 of b.jsonl", "record 2 of b.jsonl"}
    (said,) = (line for line in caplog.messages if "different answers" in line)
    assert said.startswith(
        f"1 question has different answers in different records, such as {places[0]} and "
    )


def test_several_wordings_of_one_fact_and_documents_contradict_nothing(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"question": f"Wording {n}?", "answer": "the same"} for n in range(8)]
    prose = [{"text": f"document number {n} is about {n} things"} for n in range(8)]
    write_records(tmp_path / "data" / "a.jsonl", [*records, *prose])
    counts = prepare(tmp_path, tokenizer).counts
    assert (counts["contradicted"], counts["contradicted_first"]) == (0, [])
    assert "different answers" not in caplog.text
