"""Special tokens: looked for in the text of a template, never in the contents of a record."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Span:
    """A stretch of a record. Special tokens are looked for in the template's text only."""

    text: str
    trained: bool
    is_data: bool = False


@dataclass(frozen=True)
class Segment:
    """Text for one call of the tokenizer, or one special token."""

    text: str
    trained: bool
    is_special: bool
    follows: str  # "nothing", "special" or "text"


class SpecialTokens:
    """Those of one tokenizer, by their text: what it calls special, and the other added tokens that
    its `template` writes, such as `<think>`. White space that it writes is text."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str = "") -> None:
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        self._by_text = {
            token.content: token
            for token in added.values()
            if token.special or (token.content.strip() and token.content in template)
        }
        self.bos_token = tokenizer.bos_token
        self.not_called_special = [
            token.content for token in self._by_text.values() if not token.special
        ]
        longest_first = sorted(self._by_text, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def first_in(self, text: str) -> re.Match[str] | None:
        """The first special token of a template's `text`."""
        return self._pattern.search(text)

    def all_in(self, text: str) -> Iterator[re.Match[str]]:
        return self._pattern.finditer(text)

    def segments(self, spans: Sequence[Span]) -> list[Segment]:
        """Neighbouring texts of equal training joined, special tokens of the template apart."""
        segments: list[Segment] = []
        for span in spans:
            for text, is_special in self._split(span):
                last = segments[-1] if segments else None
                if last and not (is_special or last.is_special) and last.trained == span.trained:
                    segments[-1] = replace(last, text=last.text + text)
                else:
                    follows = ("special" if last.is_special else "text") if last else "nothing"
                    segments.append(Segment(text, span.trained, is_special, follows))
        return self._stripped(segments)

    def _split(self, span: Span) -> Iterator[tuple[str, bool]]:
        """Non-empty (text, is_special) of a span."""
        at = 0
        for found in () if span.is_data else self._pattern.finditer(span.text):
            if at < found.start():
                yield span.text[at : found.start()], False
            yield found.group(), True
            at = found.end()
        if at < len(span.text):
            yield span.text[at:], False

    def _stripped(self, segments: list[Segment]) -> list[Segment]:
        """Without the white space that a neighbouring special token is declared to swallow."""
        for at, segment in enumerate(segments):
            if not segment.is_special:
                continue
            token = self._by_text[segment.text]
            if token.lstrip and at and not segments[at - 1].is_special:
                before = segments[at - 1]
                segments[at - 1] = replace(before, text=before.text.rstrip())
            if token.rstrip and at + 1 < len(segments) and not segments[at + 1].is_special:
                behind = segments[at + 1]
                segments[at + 1] = replace(behind, text=behind.text.lstrip())
        return [segment for segment in segments if segment.text]
