"""What files of each kind became is counted."""

import copy
from pathlib import Path
from typing import Any

from support.jobs import QUESTIONS, write_records
from support.token_caches import prepare, prose, write_prose

STRICT = """{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('turns must alternate') }}
{%- endif -%}
<s>{{ message.role }}: {{ message.content }}</s>
{%- endfor -%}
{%- if add_generation_prompt -%}<s>assistant: {% endif -%}"""


def test_each_kind_of_file_is_counted_with_what_was_skipped_of_it(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 3, twin=prose(2))
    data = tmp_path / "data"
    write_records(data / "a.jsonl", [*QUESTIONS, {"nothing": "useful"}, QUESTIONS[0]])
    (data / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    (data / "photo.PNG").write_bytes(b"\x89PNG")
    (data / "LICENSE").write_bytes(b"Do as you like.")
    (data / ".DS_Store").write_bytes(b"")
    found = prepare(tmp_path, tokenizer, MAX_SKIPPED_SHARE="0.5").counts
    kinds = found["by_file_type"]
    assert set(kinds) == {".md", ".txt", ".jsonl", ".png", "no suffix"}
    records = {"files": 2, "records": 40, "documents": 0, "turns": 80, "copies": 1, "skipped": 2}
    assert records.items() <= kinds[".jsonl"].items()
    assert (kinds[".md"]["documents"], kinds[".txt"]["copies"]) == (3, 1)
    assert kinds[".png"] == dict.fromkeys(records, 0) | {"skipped": 1, "tokens": 0}
    assert sum(kind["skipped"] for kind in kinds.values()) == found["skipped"]
    assert sum(kind["records"] + kind["documents"] for kind in kinds.values()) == (
        found["text"] + found["conversation"]
    )


def test_a_record_that_the_template_refuses_is_skipped_of_its_kind(
    tmp_path: Path, tokenizer: Any
) -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = STRICT
    twice = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"},
             {"role": "assistant", "content": "three"}]  # fmt: skip
    write_records(tmp_path / "data" / "my faq.v2 new.jsonl", [*QUESTIONS, {"messages": twice}])
    found = prepare(tmp_path, strict).counts
    assert found["skipped_first"][0].startswith("my faq.v2 new.jsonl line 41: ")
    assert found["by_file_type"][".jsonl"]["skipped"] == found["skipped"] == 1


def test_a_document_of_which_the_end_is_held_out_is_one_of_its_own_kind(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_prose(tmp_path, 1)
    (tmp_path / "data" / "000.jpg").write_bytes(b"\xff\xd8")
    found = prepare(tmp_path, tokenizer)
    assert found.counts["by_file_type"][".md"]["documents"] == 1
    assert found.counts["by_file_type"][".jpg"]["documents"] == 0
    (row,) = found.trained.rows
    assert found.trained.corpus.files[row["source"]].name == "000.md"
