"""What was read and what of it is trained is counted."""

import logging
from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import prepare, prose, write_prose

from trainer.errors import DataError


def test_too_many_records_without_a_trained_token_ask_for_a_longer_max_length(
    tmp_path: Path, tokenizer: Any
) -> None:
    long = {"question": prose(1), "answer": "yes"}
    write_records(
        tmp_path / "data" / "a.jsonl", [*QUESTIONS, *({**long, "answer": f"{n}"} for n in range(9))]
    )
    with pytest.raises(
        DataError,
        match=r"of \d+ records.*QLORA_MAX_LENGTH=64.*longest with \d+ tokens; raise it, or",
    ):
        prepare(tmp_path, tokenizer)
    counts = prepare(tmp_path, tokenizer, MAX_SKIPPED_SHARE="0.5").counts
    assert 1 <= counts["fully_masked"] <= 9
    assert counts["sequences"] == counts["records"] - counts["fully_masked"]


def test_records_that_are_cut_are_counted_with_the_length_that_holds_them(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    long = [{"question": f"What is {n}?", "answer": "so it is " * 40} for n in range(8)]
    longest = {"question": "What is all?", "answer": "so it is " * 400}
    write_records(tmp_path / "data" / "a.jsonl", [*QUESTIONS, *long, longest])
    write_records(tmp_path / "judged" / "a.jsonl", QUESTIONS[:4])
    given = {"EVAL_URI": str(tmp_path / "judged")}
    counts = prepare(tmp_path, tokenizer, **given).counts
    (said,) = (line for line in caplog.messages if "QLORA_MAX_LENGTH" in line)
    most, whole = counts["length_for_most"], counts["length_for_all"]
    assert (
        said
        == (
            "9 of 49 records (18%) are longer than QLORA_MAX_LENGTH=64 and lose their end: "
            f"{most:,} would hold 90% of them, {whole:,} all"
        )
        or most == whole
    )
    assert prepare(tmp_path, tokenizer, **given, MAX_LENGTH=str(whole)).counts["truncated"] == 0
    assert prepare(tmp_path, tokenizer, **given, MAX_LENGTH=str(whole - 64)).counts["truncated"]


def test_every_example_is_counted_once_by_its_kind(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 5, twin=prose(2))
    write_records(tmp_path / "data" / "a.jsonl", QUESTIONS[:20])
    (tmp_path / "data" / "photo.png").write_bytes(b"\x89PNG")
    found = prepare(tmp_path, tokenizer)
    counts = found.counts
    assert (counts["text"], counts["conversation"], counts["duplicates"]) == (5, 20, 1)
    assert (counts["files"], counts["skipped"]) == (7, 1)
    assert counts["records"] + counts["documents"] + counts["held_out"] == 25
    trained = sum(int((block.labels != -100).sum()) for block in found.train)
    assert counts["trained_tokens"] == trained < counts["tokens"]
    assert counts["blocks"] == len(found.train)
    assert counts["padding_share"] == pytest.approx(1 - counts["tokens"] / (64 * counts["blocks"]))


def test_what_was_skipped_and_assumed_is_logged(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_prose(tmp_path, 3)
    (tmp_path / "data" / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / "data" / "latin.txt").write_bytes(b"caf\xe9 au lait")
    with caplog.at_level(logging.INFO):
        prepare(tmp_path, tokenizer)
    assert "skipped photo.png: unsupported .png" in caplog.text
    assert "latin.txt: byte 3 is not UTF-8; read as cp1252" in caplog.text
    assert "data: 4 texts from 4 files; " in caplog.text
    assert "the data is prose only" in caplog.text


def test_several_turns_are_noticed_where_a_tenth_of_the_records_has_them(
    tmp_path: Path, tokenizer: Any
) -> None:
    def turns(*said: str) -> dict[str, Any]:
        roles = ("user", "assistant") * 2
        return {"messages": [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]}

    alone = [turns(f"What is {n}?", f"It is {n * 7}.") for n in range(20)]
    longer = [turns(f"Who is {n}?", "A bird.", "Where?", f"In place {n}.") for n in range(20)]
    for folder, records, found in (("a", alone, False), ("b", [*alone, *longer], True)):
        write_records(tmp_path / folder / "data" / "a.jsonl", records)
        assert prepare(tmp_path / folder, tokenizer).counts["several_turns"] is found
