"""In any order of work, and after a kill, the same tokens are written."""

import threading
from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import VOCABULARY, content, flip, prepare, prose, write_prose

from trainer.corpus import formats
from trainer.corpus.examples import Text
from trainer.tokenization import token_cache_writer


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


def test_after_a_failure_nobody_waits_for_what_is_still_being_tokenised() -> None:
    """A chat template may loop for minutes, and a signal is to be heard at once."""
    released, done = threading.Event(), []

    def tokenise(_: object) -> Any:
        released.wait(20)
        done.append(1)

    queue = token_cache_writer._BatchQueue(None, tokenise)  # type: ignore[arg-type]
    queue.add(0, Text("a" * token_cache_writer._BATCH_CHARS))
    queue.close()
    assert not done
    released.set()
