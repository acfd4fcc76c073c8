"""How Ollama runs what was exported."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.tokenization.record_tokenizer import RecordTokenizer, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def modelfile(tokenizer: "PreTrainedTokenizerBase", parts: Sequence[str], base: str) -> str:
    """A question worded as in training, greedy answers, and what ends them.

    Ollama does not read the chat template inside the file: its own are Go templates.
    """
    before, after = _frame(tokenizer)
    ends = tokenizer.convert_ids_to_tokens(stop_ids(tokenizer))
    return "\n".join(
        [
            *_models(parts, base),
            f'TEMPLATE """{before}{{{{ .Prompt }}}}{after}{{{{ .Response }}}}"""',
            "PARAMETER temperature 0",
            *(f'PARAMETER stop "{end}"' for end in ends),
            "",
        ]
    )


def _models(parts: Sequence[str], base: str) -> list[str]:
    if "merged" in parts:
        return ["FROM ./merged.gguf"]
    lines = ["FROM ./base.gguf"]
    if "base" not in parts:
        lines.insert(0, f"# base.gguf is {base}, in any precision")
    return lines + ["ADAPTER ./adapter.gguf"] * ("adapter" in parts)


def _frame(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """The template's text around a question, without a start token that Ollama adds itself."""
    records = RecordTokenizer(tokenizer)
    before, after = records.template.frame(("user",), generation=True)
    if records.bos_ids and tokenizer.bos_token:
        before = before.removeprefix(str(tokenizer.bos_token))
    return before, after
