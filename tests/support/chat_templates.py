"""The chat templates of published models, as trl carries them, each with a tokenizer that knows its
tokens."""

import re
from functools import cache
from pathlib import Path

import trl
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.models.locate import BUILTIN

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
_TOKEN = re.compile(r"<[|\uff5c]?[\w\u2581/.:-]+[|\uff5c]?>|\[/?[A-Z_]+\]|<\|[\w\"]+\|>")
# As the models have them: added, but not called special.
_NOT_SPECIAL = re.compile("think|tool|arg_|atem|function|parameter")


@cache
def template(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text()


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """That of the built-in model, with the tokens that the template writes."""
    return with_template(template(name))


def with_template(text: str, without: str = "") -> PreTrainedTokenizerBase:
    """`without` matches those that are no tokens of their own."""
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN / "tiny")
    found = sorted({*_TOKEN.findall(text)})
    found = [token for token in found if not without or not re.search(without, token)]
    tokenizer.add_tokens(
        [
            AddedToken(token, special=_NOT_SPECIAL.search(token) is None, normalized=False)
            for token in found
        ]
    )
    tokenizer.chat_template = text
    return tokenizer
