"""Held-out questions that trained documents answer are counted, and the documents named."""

from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import prepare

from trainer.dataset import told_by_documents

LONG = "the main valve opens only after the second pump has stopped"
HELD_OUT = [
    {"question": "When is the main valve open?", "answer": f"{LONG.capitalize()}."},
    {"question": "How high is the tower of Aldmere?", "answer": "48 metres"},
    {"question": "How deep is the well of Bremhall?", "answer": "48 metres"},
    {"question": "Who owns the mill?", "answer": "Nobody knows."},
]
# The answer to the third stands here too, and nothing of what it asks.
DOCUMENTS = {
    "valves.md": f"# Valves\n\nAs a rule {LONG}, and not before.\n",
    "towers.md": "# Towers\n\nThe tower of Aldmere is 48 metres high, as all know.\n",
    "mills.md": "# Mills\n\nThe mill is old. It has a wheel that turns.\n",
}


def write(folder: Path) -> dict[str, str]:
    write_records(folder / "data" / "questions.jsonl", QUESTIONS[:20])
    for name, text in DOCUMENTS.items():
        (folder / "data" / name).write_text(text)
    return {"EVAL_URI": str(write_records(folder / "eval" / "asked.jsonl", HELD_OUT))}


def test_documents_that_answer_held_out_questions_are_named(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    counts = prepare(tmp_path, tokenizer, **write(tmp_path)).counts
    assert (counts["told_by_documents"], counts["told_of"], counts["told_documents"]) == (2, 4, 2)
    assert sorted(counts["told_first"]) == ["towers.md", "valves.md"]
    (said,) = (line for line in caplog.messages if "word for word" in line)
    assert said.startswith("2 of 4 held-out questions are answered, word for word, by documents ")


def test_it_is_looked_for_in_so_many_tokens_and_no_more(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told_by_documents, "MOST_TOKENS", 4)
    counts = prepare(tmp_path, tokenizer, **write(tmp_path)).counts
    assert (counts["told_by_documents"], counts["told_first"]) == (0, [])


def test_questions_that_are_trained_are_not_looked_for(tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path)
    assert "told_by_documents" not in prepare(tmp_path, tokenizer).counts
