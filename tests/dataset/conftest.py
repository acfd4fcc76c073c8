"""Tokenizers, for whoever asks for one: the built-in one, and a small one like Llama-2's."""

from support.token_caches import tokenizer  # noqa: F401
from support.tokenizers import any_tokenizer, llama  # noqa: F401
