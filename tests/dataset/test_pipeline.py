"""Files become tokens on disk once, in any order of work the same, and copies are told."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import VOCABULARY, content, flip, prose, write_prose

from trainer.corpus import decoding, formats
from trainer.dataset import pipeline
from trainer.dataset.inputs import fetch_inputs
from trainer.errors import DataError
from trainer.settings import Settings
from trainer.tokenization import token_cache, token_cache_writer

FILES = ("shelf.json", *token_cache.COLUMNS)


def prepare(folder: Path, tokenizer: Any, **changes: str) -> pipeline.Data:
    """The blocks of what lies in `folder`/data."""
    given = {"DATA_URI": str(folder / "data"), "OUTPUT_URI": str(folder / "out")}
    given |= {"SCRATCH_DIR": str(folder / "scratch"), "MAX_LENGTH": "64"} | changes
    settings = Settings.read({}, {f"QLORA_{name}": value for name, value in given.items()})
    return pipeline.prepare(settings, fetch_inputs(settings), tokenizer)


def test_a_second_start_tokenises_nothing_and_finds_the_same(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prose(tmp_path, 30)
    first = prepare(tmp_path, tokenizer)

    def never(*_: Any) -> None:
        raise AssertionError("it tokenises again")

    monkeypatch.setattr(token_cache_writer, "write", never)
    second = prepare(tmp_path, tokenizer)
    assert content(second) == content(first)
    assert second.counts == first.counts


@pytest.mark.parametrize(
    "change",
    [{"MAX_LENGTH": "32"}, {"TEXT_COLUMN": "words"}],
)
def test_another_setting_that_decides_the_tokens_makes_others(
    tmp_path: Path, tokenizer: Any, change: dict[str, str]
) -> None:
    write_prose(tmp_path, 3)
    prepare(tmp_path, tokenizer)
    prepare(tmp_path, tokenizer, **change)
    assert len(list((tmp_path / "scratch/tokens").glob("*/shelf.json"))) == 2


@pytest.mark.parametrize(
    "harm", ["cut off", "no index", "half an index", *(f"flipped {name}" for name in FILES)]
)
def test_damaged_tokens_are_made_again(
    tmp_path: Path, tokenizer: Any, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_prose(tmp_path, 3)
    first = prepare(tmp_path, tokenizer)
    before = content(first)
    (index,) = (tmp_path / "scratch/tokens").glob("*/shelf.json")
    if harm == "cut off":
        with (index.parent / "tokens").open("r+b") as file:
            file.truncate(100)
    elif harm == "no index":
        index.unlink()
    elif harm == "half an index":
        index.write_text(index.read_text()[:50])
    else:
        flip(index.parent / harm.removeprefix("flipped "))
    again = prepare(tmp_path, tokenizer)
    assert content(again) == before and again.counts == first.counts
    assert "what was tokenised is damaged; it is made again" in caplog.text


def test_only_the_newest_token_folders_are_kept(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 2)
    for length in range(32, 32 + token_cache.KEPT_CACHES + 2):
        prepare(tmp_path, tokenizer, MAX_LENGTH=str(length))
    assert len(list((tmp_path / "scratch/tokens").glob("*/"))) == token_cache.KEPT_CACHES


def test_many_small_batches_on_many_threads_give_the_same(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prose(tmp_path, 25)
    write_records(tmp_path / "data" / "a.jsonl")
    first = prepare(tmp_path, tokenizer)
    monkeypatch.setattr(token_cache_writer, "_BATCH_CHARS", 500)
    monkeypatch.setattr(
        token_cache_writer.os, "sched_getaffinity", lambda _: range(7), raising=False
    )
    second = prepare(tmp_path, tokenizer, SCRATCH_DIR=str(tmp_path / "other"))
    assert content(second) == content(first)
    assert [q.question for q in second.questions] == [q.question for q in first.questions]


def test_sequences_are_looked_up_a_few_at_a_time_and_none_is_lost(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prose(tmp_path, 30)
    at_once = content(prepare(tmp_path, tokenizer))
    assert len(at_once) > 3 * 7
    monkeypatch.setattr(token_cache, "_SEQUENCES_AT_ONCE", 7)
    assert content(prepare(tmp_path, tokenizer)) == at_once


def test_copies_are_left_out_on_both_sides(tmp_path: Path, tokenizer: Any) -> None:
    changed = prose(0).replace(VOCABULARY[3], "other")
    write_prose(tmp_path, 30, copy=prose(1) + "\n", near=changed)
    counts = prepare(tmp_path, tokenizer).counts
    assert (counts["duplicates"], counts["near_duplicates"]) == (1, 1)
    assert counts["documents"] + counts["held_out"] == counts["text"] == 30


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


def test_a_file_that_breaks_late_gives_nothing_though_it_was_long_under_way(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_records(tmp_path / "data" / "good.jsonl")
    rows = "".join(f'"What is {n}?","It is {n}"\n' for n in range(40_000))
    (tmp_path / "data" / "bad.csv").write_text(f'question,answer\n{rows}"open')
    found = prepare(tmp_path, tokenizer, MAX_SKIPPED_SHARE="0.5")
    assert (found.counts["conversation"], found.counts["skipped"]) == (len(QUESTIONS), 1)
    assert "bad.csv: line 40002: a quote" in found.counts["skipped_first"][0]
    assert all("What is the code" in q.question for q in found.questions)


def test_too_many_records_without_a_trained_token_ask_for_a_longer_max_length(
    tmp_path: Path, tokenizer: Any
) -> None:
    long = {"question": prose(1), "answer": "yes"}
    write_records(
        tmp_path / "data" / "a.jsonl", [*QUESTIONS, *({**long, "answer": f"{n}"} for n in range(9))]
    )
    with pytest.raises(DataError, match=r"of \d+ records.*MAX_LENGTH=64.*longest with \d+ tokens"):
        prepare(tmp_path, tokenizer)
    counts = prepare(tmp_path, tokenizer, MAX_SKIPPED_SHARE="0.5").counts
    assert 1 <= counts["fully_masked"] <= 9
    assert counts["sequences"] == counts["records"] - counts["fully_masked"]


def test_evaluation_data_that_is_trained_too_is_counted_and_named(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_prose(tmp_path, 5)
    write_records(tmp_path / "data" / "a.jsonl", QUESTIONS[:20])
    judged = tmp_path / "judged"
    write_records(judged / "questions.jsonl", QUESTIONS[15:30])
    (judged / "near.md").write_text(prose(2).replace(VOCABULARY[3], "other"))
    (judged / "new.md").write_text(prose(77))
    with caplog.at_level(logging.WARNING):
        found = prepare(tmp_path, tokenizer, EVAL_URI=str(judged))
    assert found.counts["evaluation_copies"] == 6
    assert "6 of 17 examples of the evaluation data are also in the training data" in caplog.text
    assert "near.md, questions.jsonl" in caplog.text and "new.md" not in caplog.text


def test_blocks_are_read_from_the_disk_and_not_from_memory(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 3)
    found = prepare(tmp_path, tokenizer)
    (index,) = (tmp_path / "scratch/tokens").glob("*/shelf.json")
    assert isinstance(found.train._tokens, np.memmap)  # type: ignore[attr-defined]
    sizes = token_cache.WriteProgress.parse(index.read_text()).sizes
    assert sizes["tokens"] == 4 * found.train._tokens.size  # type: ignore[attr-defined]


@pytest.mark.parametrize("harm", ["none", "cut off", "half a progress file", "flipped"])
def test_after_a_kill_tokenising_goes_on_where_it_was_and_ends_the_same(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    write_prose(tmp_path, 30, near=prose(3).replace(VOCABULARY[3], "other"))
    write_records(tmp_path / "data" / "a.jsonl")
    (tmp_path / "data" / "005.csv").write_text('question,answer\nWhy?,So\n"open')
    (tmp_path / "data" / "photo.png").write_bytes(b"\x89PNG")
    whole = prepare(tmp_path, tokenizer, SCRATCH_DIR=str(tmp_path / "other"))
    monkeypatch.setattr(token_cache_writer, "_SAVE_EVERY_BYTES", 20_000)
    monkeypatch.setattr(token_cache_writer, "_BATCH_CHARS", 5_000)
    read, was_read = [], formats.read

    def until_killed(path: Path, *how: Any) -> Any:
        read.append(path.name)
        if path.name == "020.md" and read.count(path.name) == 1:
            raise KeyboardInterrupt
        return was_read(path, *how)

    monkeypatch.setattr(formats, "read", until_killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, tokenizer)
    (progress,) = (tmp_path / "scratch" / "tokens").glob("*/mark.json")
    if harm == "cut off":
        with (progress.parent / "rows").open("r+b") as file:
            file.truncate(65)
    elif harm == "half a progress file":
        progress.write_text(progress.read_text()[:50])
    elif harm == "flipped":
        flip(progress.parent / "lengths")
    again = prepare(tmp_path, tokenizer)
    assert content(again) == content(whole) and again.counts == whole.counts
    assert [q.question for q in again.questions] == [q.question for q in whole.questions]
    assert (read.count("000.md") == 1) == (harm == "none") and read.count("020.md") == 2
