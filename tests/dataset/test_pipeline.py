"""Files become blocks to train on and a held-out part."""

from pathlib import Path
from typing import Any

import pytest
from support.token_caches import prepare, prose, write_prose

from trainer.corpus import decoding, formats


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
