"""Records, the templates that word them, and what of them is trained."""

from typing import Any

from support.corpora import Encoded, encode
from trainer.corpus.examples import Conversation, Example, Message

CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
INST = (  # the shape of Llama-2-chat: a space, not a line, between question and answer
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content"
    " + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINK = (  # the shape of Qwen3: a finished turn holds more than the generation prompt
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
OPEN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"  # no end token
TEMPLATES = {"fallback": None, "chatml": CHATML, "inst": INST, "think": THINK, "open": OPEN}


def asked(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def one(example: Example, tokenizer: Any, max_length: int = 4096) -> Encoded:
    (encoded,), _ = encode([example], tokenizer, max_length)
    return encoded


def trained_ids(encoded: Encoded) -> list[int]:
    return [label for label in encoded.labels if label != -100]
