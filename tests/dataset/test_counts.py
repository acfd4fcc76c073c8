"""What was read and what of it is trained is counted."""

from pathlib import Path
from typing import Any

import pytest
from support.jobs import QUESTIONS, write_records
from support.token_caches import prepare, prose

from trainer.errors import DataError


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
