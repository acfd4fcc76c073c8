"""What the child process read arrives as it was, and nothing else arrives."""

import pytest

from trainer.corpus.examples import (
    Completion,
    Conversation,
    Heading,
    Item,
    Message,
    Notice,
    SkippedRecord,
    Text,
    ToolCall,
)
from trainer.corpus.sandbox_protocol import decode_item, encode_item

ITEMS: list[Item] = [
    Text("# a\n\u2028😀", (Heading(0, 1, "a"),)),
    Completion("p\n", " c"),
    Conversation((Message("user", "q"), Message("assistant", "a"))),
    Conversation(
        (
            Message("assistant", "", False, "why", (ToolCall("rain", '{"in": "Brede"}', "c1"),)),
            Message("tool", '{"rain": true}', call_id="c1", name="rain"),
            Message("assistant", "a"),
        ),
        '[{"type": "function"}]',
    ),
    SkippedRecord("line 3", "broken JSON"),
    Notice("read as cp1252"),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_every_item_is_one_line_and_comes_back(item: Item) -> None:
    line = encode_item(item)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    found = decode_item(line)
    assert found == item
    if isinstance(item, Text) and isinstance(found, Text):
        assert found.headings == item.headings


@pytest.mark.parametrize(
    "line",
    [b'["text", 3, []]', b'["unknown", "a"]', b'["completion", "p"]', b'{"text": "a"}', b"text"],
)
def test_another_line_is_no_item(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_item(line)
