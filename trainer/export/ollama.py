"""How Ollama and llama.cpp run what was exported."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpus.examples import Message
from trainer.errors import SettingsError
from trainer.runtime.log import one_line
from trainer.runtime.templates import render
from trainer.tokenization.record_tokenizer import stop_ids, tokenizer_of_records

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION = "qquestionq"
TEMPLATE = Path(__file__).with_name("Modelfile.jinja")


def modelfile(tokenizer: "PreTrainedTokenizerBase", parts: Sequence[str], base: str) -> str:
    """A question worded as in training, greedy answers, and what ends them.

    `parts` are those that were exported: merged, or adapter and base. Raises SettingsError for an
    end that is more than a text.
    """
    before, after = _frame(tokenizer)
    ends = tokenizer.convert_ids_to_tokens(stop_ids(tokenizer))
    for end in ends:
        _refuse_more_than_a_text(end)
    return render(TEMPLATE, parts=parts, base=one_line(base), before=before, after=after, ends=ends)


def _refuse_more_than_a_text(end: str) -> None:
    """It stands between quotes: one that ends them could name other weights, or a file."""
    if not end.isprintable() or {'"', "\\"} & {*end}:
        raise SettingsError(
            f"the tokenizer ends answers with {ascii(end)[:60]}, which a Modelfile cannot hold as "
            "one text; use another adapter, or `merge` in place of `export`"
        )


def next_commands(output: Path, parts: Sequence[str]) -> Iterator[str]:
    """How what was exported to `output` is asked, a line each."""
    files = {part: shlex.quote(str(output / f"{part}.gguf")) for part in ("merged", "base")}
    if {*parts} == {"adapter"}:
        yield f"it goes on what `export --part base` writes: put base.gguf beside it, in {output}"
    name = shlex.quote(str(output / "Modelfile"))
    yield f"with Ollama, by a name of yours: ollama create NAME -f {name} && ollama run NAME"
    lora = f" --lora {shlex.quote(str(output / 'adapter.gguf'))}" if "adapter" in parts else ""
    model = files["merged"] if "merged" in parts else f"{files['base']}{lora}"
    yield f"with llama.cpp: llama-server -m {model} --temp 0"


def _frame(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """The template's text around a question, without a start token that Ollama adds itself."""
    records = tokenizer_of_records(tokenizer)
    spans = records.prompt((Message("user", _QUESTION),))
    before, _, after = "".join(span.text for span in spans).rpartition(_QUESTION)
    if records.bos_ids and tokenizer.bos_token:
        before = before.removeprefix(str(tokenizer.bos_token))
    return _as_text(before), _as_text(after)


def _as_text(frame: str) -> str:
    """For a Go template between three quotes."""
    return frame.replace("{{", '{{ "{{" }}').replace('"""', '{{ "\\"\\"\\"" }}')
