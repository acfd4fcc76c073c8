"""The built-in tokenizer, for whoever asks for it."""

from support.token_caches import tokenizer  # noqa: F401
