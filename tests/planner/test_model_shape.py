"""Sizes of heads, read from configs that say more or less about them."""

from typing import Any

import pytest
from transformers import AutoConfig

from trainer.planner.model_shape import head_size, key_value_heads

SIZES = {"hidden_size": 128, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("family", "given", "size", "heads"),
    [
        ("llama", {}, 32, 4),
        ("mistral", {"num_key_value_heads": 2, "head_dim": None}, 32, 2),
        ("qwen3", {"num_key_value_heads": 1, "head_dim": 64}, 64, 1),
        ("gpt2", {"n_embd": 128, "n_head": 4}, 32, 4),
    ],
)
def test_heads_are_as_the_config_says_or_as_the_hidden_size_is_shared_out(
    family: str, given: dict[str, Any], size: int, heads: int
) -> None:
    config = AutoConfig.for_model(family, **SIZES | given)
    assert (head_size(config), key_value_heads(config)) == (size, heads)
