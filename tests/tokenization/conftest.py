"""Tokenizers, for whoever asks for one: the built-in one, and small ones of every kind."""

from support.token_caches import tokenizer  # noqa: F401
from support.tokenizers import any_tokenizer, llama, templated_tokenizer  # noqa: F401
