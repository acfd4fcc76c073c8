"""A content is plain where the template looks for nothing that it holds."""

import pytest
from support.chat_templates import NAMES, template, tokenizer_of

from trainer.corpus.examples import Conversation, Message
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.template_process import watched_words
from trainer.tokenization.watched_words import is_plain


@pytest.mark.parametrize(
    "content, expected",
    [
        ("What is it?", True),
        ("a </think> b", False),
        ("<tool_response> b", False),
        (" spaced", False),
        ("", False),
        ("user", False),
        ("of a user", True),
        ("two\nlines", True),
    ],
)
def test_what_the_template_of_qwen_looks_for(content, expected):
    assert is_plain(*watched_words(template("qwen3")))(content) is expected


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_filled_in_is_what_the_template_writes(name):
    """Of words that templates could look at, first by a frame that others made."""
    kept = RecordTokenizer(tokenizer_of(name))
    contents = ["Why {{ x }} not?", "a\nb", "<b>bold</b>", "[1, 2]", "no", "Ä\u00a0ß", "x" * 5000]
    for content in contents:
        messages = (Message("user", content), Message("assistant", content[::-1]))
        conversation = Conversation(messages)
        filled = "".join(span.text for span in kept.spans(conversation)[0])
        assert kept.template.render(conversation).text.startswith(filled.removesuffix("</s>"))
