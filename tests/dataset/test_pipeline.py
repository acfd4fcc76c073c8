"""Files become blocks to train on and a held-out part."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import columns, content, prepare, prose, settings_of, write_prose

from trainer.corpus import decoding
from trainer.corpus import prose as prose_files
from trainer.dataset.counts import held_out_in_words
from trainer.dataset.pipeline import prepare_held_out
from trainer.errors import DataError


def test_a_long_text_file_is_read_as_several_documents_that_lose_nothing(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(prose_files, "LONGEST_DOCUMENT", 3000)
    text = prose(1, paragraphs=40).replace("\n", "\r\n")
    write_prose(tmp_path, 0, book=text)
    found = prepare(tmp_path, tokenizer)
    assert found.counts["text"] > 3 and found.counts["held_out"] >= 1
    blocks = [*found.train, *found.held_out]
    words = " ".join(tokenizer.decode(b.input_ids[b.labels > 0]) for b in blocks).split()
    assert len(words) > 0.9 * len(text.split())


def test_of_a_single_document_the_end_is_held_out_and_one_is_counted(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 1, copy=prose(0))
    found = prepare(tmp_path, tokenizer)
    assert len(found.train) > len(found.held_out) >= 1 and not found.questions
    assert (found.counts["text"], found.counts["held_out"]) == (1, 1)
    assert held_out(found.counts) == "the end of the only document, about its last tenth"
    end = tokenizer.eos_token_id
    assert not any((block.input_ids == end).any() for block in found.train)  # it goes on
    assert [sum((b.labels == end).sum() for b in found.held_out), found.counts["trained_ends"]] == [
        1,
        0,
    ]
    assert (found.counts["files"], found.counts["documents"]) == (2, 1)
    assert len(list((tmp_path / "scratch/tokens").glob("*/shelf.json"))) == 2
    assert content(prepare(tmp_path, tokenizer)) == content(found)


def test_what_a_run_is_judged_by_is_what_it_holds_out(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 20)
    write_records(tmp_path / "data" / "a.jsonl")
    found = prepare(tmp_path, tokenizer)
    blocks, questions = prepare_held_out(settings_of(tmp_path), tokenizer)
    assert columns(blocks) == columns(found.held_out) and questions == found.questions
    assert questions


def held_out(counts: dict[str, Any]) -> str:
    return held_out_in_words(
        counts["held_out_by"],
        counts["held_out"],
        counts["held_out_documents"],
        counts["held_out_first"],
        counts["records"],
    )


def test_beside_records_the_only_document_is_trained_whole(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 1)
    write_records(tmp_path / "data" / "a.jsonl")
    found = prepare(tmp_path, tokenizer)
    assert (found.counts["documents"], found.counts["records"]) == (1, len(QUESTIONS))
    assert found.counts["held_out"] == 0


def test_a_small_faq_is_trained_whole_and_asked_what_was_trained(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_records(tmp_path / "data" / "a.jsonl")
    with caplog.at_level("INFO"):
        found = prepare(tmp_path, tokenizer)
    assert "held out: nothing: all 40 records are trained" in caplog.text
    assert len(found.questions) == len(QUESTIONS) and not found.trained_questions
    assert columns(found.held_out) == columns(found.train)
    blocks, questions = prepare_held_out(settings_of(tmp_path), tokenizer)
    assert columns(blocks) == columns(found.train) and questions == found.questions


def test_wordings_are_held_out_of_facts_that_are_trained(tmp_path: Path, tokenizer: Any) -> None:
    again = [r | {"question": f"Tell me: {r['question']}"} for r in QUESTIONS]
    write_records(tmp_path / "data" / "a.jsonl", [*QUESTIONS, *again])
    found = prepare(tmp_path, tokenizer)
    held = found.counts["held_out"]
    assert held == len(found.questions) > 3 and found.counts["records"] == 80 - held
    assert found.trained_questions
    asked = {q.question for q in found.questions}
    assert not asked & {q.question for q in found.trained_questions}
    assert held_out(found.counts) == f"{held} questions about facts that are trained in other words"


def test_documents_that_are_held_out_are_named(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 30)
    counts = prepare(tmp_path, tokenizer).counts
    assert counts["held_out"] == counts["held_out_documents"]
    assert re.fullmatch(r"\d+ documents whole \(\d{3}\.md(, \d{3}\.md)*(, …)?\)", held_out(counts))
    write_records(tmp_path / "data" / "a.jsonl")
    counts = prepare(tmp_path, tokenizer).counts
    assert held_out(counts).startswith("nothing: all 40 records are trained")
    assert "; 4 documents whole (003.md, 004.md, 014.md, …)" in held_out(counts)


def test_evaluation_data_is_held_out_whole_and_the_data_trained_whole(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 5)
    write_records(tmp_path / "judged" / "a.jsonl", QUESTIONS[:7])
    (tmp_path / "judged" / "photo.png").write_bytes(b"\x89PNG")
    found = prepare(tmp_path, tokenizer, EVAL_URI=str(tmp_path / "judged"))
    assert found.counts["assumed_first"] == ["evaluation data: skipped photo.png: unsupported .png"]
    assert (found.counts["documents"], found.counts["held_out"]) == (5, 7)
    assert len(found.questions) == 7
    assert held_out(found.counts) == "the evaluation data, 7 records and documents"
    settings = settings_of(tmp_path, EVAL_URI=str(tmp_path / "judged"))
    blocks, questions = prepare_held_out(settings, tokenizer)
    assert columns(blocks) == columns(found.held_out) and questions == found.questions


def test_a_fault_of_the_evaluation_data_says_that_it_is_there(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 5)
    write_records(tmp_path / "judged" / "a.jsonl", [{"id": 1}])
    with pytest.raises(DataError, match="the evaluation data, QLORA_EVAL_URI: 1 of 1 file"):
        prepare(tmp_path, tokenizer, EVAL_URI=str(tmp_path / "judged"))


def test_records_that_are_all_cut_before_their_end_are_refused(
    tmp_path: Path, tokenizer: Any
) -> None:
    long = [{"question": f"What is {n}?", "answer": prose(n)} for n in range(3)]
    write_records(tmp_path / "data" / "a.jsonl", long)
    with pytest.raises(DataError, match=r"would never learn to stop; [\d,]+ holds them all"):
        prepare(tmp_path, tokenizer)
