"""Copies are left out, and those of the training data in the evaluation data are told."""

import logging
from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import VOCABULARY, prepare, prose, write_prose

from trainer.corpus.dedup import Copy
from trainer.dataset.selection import TEXT, Selection, drop_copies
from trainer.tokenization import token_cache


def test_copies_are_left_out_on_both_sides(tmp_path: Path, tokenizer: Any) -> None:
    changed = prose(0).replace(VOCABULARY[-3], "other")
    write_prose(tmp_path, 30, copy=prose(1) + "\n", near=changed)
    counts = prepare(tmp_path, tokenizer).counts
    assert (counts["duplicates"], counts["near_duplicates"]) == (1, 1)
    assert counts["documents"] + counts["held_out"] == counts["text"] == 30


def test_evaluation_data_that_is_trained_too_is_counted_and_named(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_prose(tmp_path, 5)
    write_records(tmp_path / "data" / "a.jsonl", QUESTIONS[:20])
    judged = tmp_path / "judged"
    write_records(judged / "questions.jsonl", QUESTIONS[15:30])
    (judged / "near.md").write_text(prose(2).replace(VOCABULARY[-3], "other"))
    (judged / "new.md").write_text(prose(77))
    with caplog.at_level(logging.WARNING):
        found = prepare(tmp_path, tokenizer, EVAL_URI=str(judged))
    assert found.counts["evaluation_copies"] == 6
    assert "6 of 17 examples of the evaluation data are also in the training data" in caplog.text
    assert "near.md, questions.jsonl" in caplog.text and "new.md" not in caplog.text


def test_of_examples_that_are_alike_the_first_is_kept(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 3, twin=prose(1))
    prepare(tmp_path, tokenizer)
    (index,) = (tmp_path / "scratch/tokens").glob("*/shelf.json")
    cache = token_cache.open_complete(index.parent)
    assert cache is not None
    corpus = drop_copies([], cache)
    assert corpus.kept.tolist() == [True, True, True, False]
    assert corpus.copies.tolist() == [Copy.NO, Copy.NO, Copy.NO, Copy.EXACT]
    assert corpus.kinds == {TEXT: 3}
    chosen = Selection(corpus, corpus.kept)
    assert len(chosen) == len(chosen.rows) == 3
