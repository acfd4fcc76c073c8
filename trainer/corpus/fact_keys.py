"""Which question a record asks and which answer it gives, as numbers that alike records share."""

import hashlib
import re

from trainer.corpus.examples import Completion, Conversation, Example, Text

_BETWEEN_WORDS = re.compile(r"[\W_]+")
_ASCII = bytes(code if chr(code).isalnum() or code > 127 else 32 for code in range(256))


def fact_keys(example: Example) -> tuple[int, int]:
    """(question, answer) of a record, 64 bits each: equal where the words are, whatever their case
    and punctuation. (0, 0) for a document.

    Of several turns the last answer counts, and all that stands before it is the question.
    """
    if isinstance(example, Text):
        return 0, 0
    if isinstance(example, Completion):
        return _key([example.prompt]), _key([example.completion])
    last = _last_answer(example)
    before = [part for turn in example.messages[:last] for part in (turn.role, turn.content)]
    return _key(before), _key([example.messages[last].content])


def question_key(question: str) -> int:
    """Of a question as text: equal where the words are."""
    return _key([question])


def _last_answer(example: Conversation) -> int:
    return max(at for at, turn in enumerate(example.messages) if turn.role == "assistant")


def _key(parts: list[str]) -> int:
    words = b"\0".join(_words(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


def _words(text: str) -> bytes:
    """`text` itself where it has no words: two signs are two answers."""
    if text.isascii():  # ten times as fast as the pattern
        words = b" ".join(text.lower().encode().translate(_ASCII).split())
    else:
        words = _BETWEEN_WORDS.sub(" ", text.casefold()).strip().encode()
    return words or text.strip().encode()
