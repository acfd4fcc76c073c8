"""What a template reads is found out by rendering it."""

import pytest
from support.chat_templates import tokenizer_of

from trainer.tokenization.record_tokenizer import tokenizer_of_records
from trainer.tokenization.turns import TurnStyle


@pytest.mark.parametrize(
    "name, style",
    [
        ("qwen3", TurnStyle()),
        ("gptoss", TurnStyle(inline_thought="field")),
        ("gemma", TurnStyle(has_system=False, own_thought="inline", has_calls=False)),
        ("smolvlm", TurnStyle(content_is_parts=True, own_thought="inline", has_calls=False)),
        (
            "deepseekv3",
            TurnStyle(inline_thought="hidden", own_thought="hidden", arguments_are_text=True),
        ),
    ],
)
def test_the_style_of_a_template(name, style):
    assert tokenizer_of_records(tokenizer_of(name)).template.style == style
