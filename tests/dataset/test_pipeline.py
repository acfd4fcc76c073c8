"""Files become blocks to train on and a held-out part."""

from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import columns, content, prepare, prose, settings_of, write_prose

from trainer.corpus import decoding, formats
from trainer.dataset.pipeline import prepare_held_out
from trainer.errors import DataError


def test_a_long_text_file_is_read_as_several_documents_that_lose_nothing(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(formats, "LONGEST_DOCUMENT", 3000)
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


def test_evaluation_data_is_held_out_whole_and_the_data_trained_whole(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 5)
    write_records(tmp_path / "judged" / "a.jsonl", QUESTIONS[:7])
    found = prepare(tmp_path, tokenizer, EVAL_URI=str(tmp_path / "judged"))
    assert (found.counts["documents"], found.counts["held_out"]) == (5, 7)
    assert len(found.questions) == 7
    settings = settings_of(tmp_path, EVAL_URI=str(tmp_path / "judged"))
    blocks, questions = prepare_held_out(settings, tokenizer)
    assert columns(blocks) == columns(found.held_out) and questions == found.questions


def test_records_that_are_all_cut_before_their_end_are_refused(
    tmp_path: Path, tokenizer: Any
) -> None:
    long = [{"question": f"What is {n}?", "answer": prose(n)} for n in range(3)]
    write_records(tmp_path / "data" / "a.jsonl", long)
    with pytest.raises(DataError, match="would never learn to stop; raise it until answers fit"):
        prepare(tmp_path, tokenizer)
