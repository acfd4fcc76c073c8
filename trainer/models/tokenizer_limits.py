"""How much longer a tokenizer may make a text, or an answer: it may come from anybody, and the
library in Rust that follows it has no limit and cannot be stopped.

A normalizer replaces what it likes by what it likes, one after the other; a decoder does it to what
a model has written. Those of published models write 36 times as much at most: 18 letters for a
ligature of Arabic, and a space for a space.
"""

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.runtime.json_records import well_formed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_GROWTH = 40.0
LONGEST_TOKEN = 1 << 14  # characters
MOST_AROUND = 64  # tokens that are put around a text


def refuse_bombs(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raises DataError for a tokenizer that can make a text, or a token, of any length."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    try:
        with well_formed("a tokenizer"):
            faults = [
                f"the tokenizer's {name} can make a text {growth:,.0f} times as long"
                for name in ("normalizer", "decoder")
                if (growth := _growth(_state(getattr(backend, name)))) > MOST_GROWTH
            ]
            # Tokens come one at a time: no published one looks for more than a text in them, and a
            # pattern may try all there is without end.
            if any("Regex" in each.get("pattern", {}) for each in _each(_state(backend.decoder))):
                faults.append("the tokenizer's decoder looks for a pattern")
            if _around(_state(backend.post_processor)) > MOST_AROUND:
                faults.append(f"the tokenizer puts more than {MOST_AROUND} tokens around a text")
    except ValueError as error:
        raise DataError(f"its parts are none that are known here ({error})") from None
    if max(map(len, backend.get_vocab()), default=0) > LONGEST_TOKEN:
        faults.append(f"the tokenizer has a token of more than {LONGEST_TOKEN:,} characters")
    if faults:
        raise DataError(f"{', and '.join(faults)}, which no language needs; use another")


def _state(part: Any) -> dict[str, Any]:
    """What tokenizer.json has of it."""
    return {} if part is None else json.loads(part.__getstate__())


def _growth(part: dict[str, Any]) -> float:
    """How many characters it may write for one, at most."""
    growth = 1.0
    for each in _each(part):
        if each.get("type") == "Replace":
            pattern, content = each["pattern"], each["content"]
            # An expression may find nothing, between any two characters.
            found = len(pattern.get("String", "")) or 1
            growth *= max(1.0, len(content) / found + ("Regex" in pattern))
        elif each.get("type") == "Prepend":
            growth *= 1 + len(each["prepend"])
        elif each.get("type") == "Precompiled":
            growth *= _longest_piece(base64.b64decode(each["precompiled_charsmap"] or ""))
    return growth


def _each(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = part.get("normalizers") or part.get("decoders") or part.get("processors") or ()
    yield part
    for each in inner:
        yield from _each(each)


def _longest_piece(charsmap: bytes) -> int:
    """Of what sentencepiece writes for others: behind a trie, whose length stands first, texts that
    end with a zero byte each."""
    pieces = charsmap[4 + int.from_bytes(charsmap[:4], "little") :].split(b"\0")
    return max(1, *(len(piece.decode(errors="replace")) for piece in pieces))


def _around(part: dict[str, Any]) -> int:
    """Tokens that a post-processor writes around one text."""
    count = 0
    for each in _each(part):
        if each.get("type") == "TemplateProcessing":
            known = {name: len(one["ids"]) for name, one in each["special_tokens"].items()}
            for piece in (*each["single"], *each["pair"]):
                count += known.get(piece.get("SpecialToken", {}).get("id"), 1)
    return count
