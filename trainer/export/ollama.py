"""How Ollama runs what was exported."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.runtime.templates import render
from trainer.tokenization.record_tokenizer import RecordTokenizer, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE = Path(__file__).with_name("Modelfile.jinja")


def modelfile(tokenizer: "PreTrainedTokenizerBase", parts: Sequence[str], base: str) -> str:
    """A question worded as in training, greedy answers, and what ends them.

    `parts` are those that were exported: merged, or adapter and base.
    """
    before, after = _frame(tokenizer)
    ends = tokenizer.convert_ids_to_tokens(stop_ids(tokenizer))
    return render(TEMPLATE, parts=parts, base=base, before=before, after=after, ends=ends)


def _frame(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """The template's text around a question, without a start token that Ollama adds itself."""
    records = RecordTokenizer(tokenizer)
    before, after = records.template.frame(("user",), generation=True)
    if records.bos_ids and tokenizer.bos_token:
        before = before.removeprefix(str(tokenizer.bos_token))
    return before, after
