"""Records are shown as the model sees them: their own tokens, written out again."""

from pathlib import Path
from typing import Any

from support.jobs import QUESTIONS, write_records
from support.token_caches import prepare, prose, write_prose

from trainer.dataset.seen import Piece, seen_records, shortened


def test_what_is_shown_is_what_stands_in_a_block_with_the_same_labels(
    tmp_path: Path, any_tokenizer: Any
) -> None:
    answer = "  a fox\n</s> 😀"
    write_records(tmp_path / "data" / "a.jsonl", [{"question": "Why é?", "answer": answer}])
    found = prepare(tmp_path, any_tokenizer)
    (shown,) = seen_records(found.trained, any_tokenizer, 3)
    (block,) = found.train
    used = block.input_ids[: shown.tokens]
    assert "".join(p.text for p in shown.pieces) == any_tokenizer.decode(used)
    trained = "".join(p.text for p in shown.pieces if p.trained)
    assert trained == f"{answer}</s>"
    assert shown.trained_tokens == (block.labels != -100).sum()
    assert shown.pieces[-1] == Piece("</s>", trained=True, special=True)
    assert shown.spelt_out == ["</s>"]
    assert [p.text for p in shown.pieces if p.special] == ["<s>", "</s>"]


def test_of_each_kind_of_file_one_is_shown_and_of_cut_ones_too(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 3, note=prose(7))
    write_records(tmp_path / "data" / "z.jsonl", QUESTIONS)
    write_records(tmp_path / "data" / "cut.jsonl", [{"question": "Why?", "answer": prose(9)}])
    found = prepare(tmp_path, tokenizer, EVAL_URI=str(tmp_path / "data"))
    shown = seen_records(found.trained, tokenizer, 4)
    assert [record.file for record in shown if record.cut] == ["cut.jsonl"]
    assert {record.file.rpartition(".")[2] for record in shown} == {"md", "txt", "jsonl"}
    assert len(shown) == len(seen_records(found.trained, tokenizer, 9)) - 5 == 4
    documents = [record for record in shown if record.file.endswith(("md", "txt"))]
    assert all(record.sequences > 1 and not record.cut for record in documents)
    assert seen_records(found.trained, tokenizer, 0) == []


def test_a_record_is_known_by_its_number_in_its_file(tmp_path: Path, tokenizer: Any) -> None:
    for name in "ab":
        records = [{"question": f"{name} {n}?", "answer": f"{n}"} for n in range(5)]
        write_records(tmp_path / "data" / f"{name}.jsonl", records)
    found = prepare(tmp_path, tokenizer)
    for record in seen_records(found.trained, tokenizer, 10):
        assert record.count == 5
        text = "".join(piece.text for piece in record.pieces)
        assert f"{record.file[0]} {record.number - 1}?" in text


def test_the_middle_of_a_long_record_is_left_out_and_counted() -> None:
    given, trained = Piece("q" * 60, False, False), Piece("a" * 40, True, False)
    assert shortened([given, trained], 100) == [given, trained]
    texts = [piece.text for piece in shortened([given, trained], 50)]
    assert texts == ["q" * 35, "\n[… 50 characters …]\n", "a" * 15]
