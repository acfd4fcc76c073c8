"""A short, fixed part of what tests/fuzz.py does for as long as it is given; and records of any
shape, of which `FUZZ_EXAMPLES` says how many."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import fuzz
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Unusable
from trainer.corpus.formats import format_of, read
from trainer.corpus.sandbox_protocol import decode_item, encode_item


def test_damaged_files_of_every_format_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz.replay(40 * len(fuzz.SEEDS), seed=1, folder=tmp_path)
    assert found.total() == 40 * len(fuzz.SEEDS)
    assert found["read"] > 100 and found["refused"] > 100


def test_every_undamaged_seed_is_read(tmp_path: Path) -> None:
    with fuzz.Sandbox(fuzz.LIMITS) as sandbox:
        for name, content in fuzz.SEEDS.items():
            (tmp_path / name).write_bytes(content)
            assert fuzz.outcome(tmp_path / name, sandbox) == "read", name


def test_what_the_coverage_guided_runs_kept_is_read_or_refused(tmp_path: Path) -> None:
    found = fuzz.replay_kept(tmp_path)
    assert found.total() > 100 and found["read"] and found["refused"]


# What readers look for in records, and words that mean something to them.
KEYS = [
    *("messages", "conversations", "role", "from", "content", "value", "text", "sender", "author"),
    *("prompt", "completion", "question", "answer", "answers", "choices", "options", "A", "B"),
    *("answerKey", "label", "weight", "system", "history", "tools", "tool_calls", "function_call"),
    *("name", "arguments", "parts", "contents", "chat_messages", "mapping", "current_node"),
    *("parent", "message", "body", "request", "response", "output", "input", "custom_id", "data"),
    *("annotations", "result", "schema", "columns", "paragraphs", "qas", "mainEntity", "@type"),
    *("chat", "fragments", "type", "content_type", "recipient", "aliases", "suggestedAnswer"),
    *("acceptedAnswer", "stem", "timestamp", "date", "conversation_id", "turn", "train", "test"),
]
WORDS = [
    *("user", "assistant", "system", "tool", "function_call", "", " ", "A", "A, C", "AB", "a?"),
    *("<think>x</think>y", "x</think>y", "<think>", "FÃ¼nf", "#N/A", "<p>x</p>", "\ufffd", "[1]"),
    *('[{"role": "user", "content": "q"}]', "reasoning", "REQUEST", "image", "text"),
    *("{'a': 1}", "[{'role': 'user'}]", "2024-01-01", "1/2/2024 10:00 AM", "FAQPage", "a; b"),
    *("\ud800", "\0", "\N{NO-BREAK SPACE}", "[[[" * 50),
]
LEAVES = st.one_of(
    st.sampled_from(WORDS), st.integers(-3, 10**20), st.floats(), st.booleans(), st.none()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=25,
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=7)
EXAMPLES = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")), deadline=None, derandomize=True
)


def is_sound(folder: Path, name: str, content: bytes) -> None:
    """Whatever comes of it is an item that can be sent, or a reason of one line."""
    path = folder / name
    path.write_bytes(content)
    items = []
    try:
        items += read(path, format_of(name), Columns())
    except Unusable as reason:
        assert str(reason)
        assert "\n" not in str(reason)
    for item in items:
        fuzz.check(item)
        assert decode_item(encode_item(item)) == item


@EXAMPLES
@given(st.one_of(st.lists(RECORDS, min_size=1, max_size=4), VALUES))
@example({"current_node": [], "mapping": {"a": {"parent": []}}})
@example([{"choices": [{"text": "a", "label": []}, {"text": "b", "label": "B"}], "answer": "B"}])
@example([{"data": {}, "request": {"messages": []}}, {"question": {}, "body": {"messages": [{}]}}])
@example([[]])
def test_any_json_is_records_or_a_reason(data: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        is_sound(Path(folder), "a.json", json.dumps(data).encode())
        if isinstance(data, list):
            lines = "\n".join(map(json.dumps, data))
            is_sound(Path(folder), "a.jsonl", lines.encode())


@EXAMPLES
@given(
    st.lists(st.sampled_from([*KEYS, *WORDS]), min_size=1, max_size=6),
    st.lists(st.lists(st.one_of(LEAVES, VALUES.map(json.dumps)), max_size=7), max_size=6),
)
@example([" "], [])
@example(["\N{NO-BREAK SPACE}"], [[" "]])
def test_any_rows_are_records_or_a_reason(header: list[str], rows: list[list[object]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    with tempfile.TemporaryDirectory() as folder:
        is_sound(Path(folder), "a.csv", out.getvalue().encode("utf-8", "surrogatepass"))
