"""An answer as it is generated: its text in pieces, and what is known of it at its end."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from trainer.engine.prompt import Prompt
from trainer.inference.stop_texts import until_stop
from trainer.inference.thoughts import without_thought
from trainer.tokenization.record_tokenizer import thought_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StreamedAnswer:
    """`tokens` of the answer to a prompt, one of `ends` or one of the texts `stops` its end."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        ends: Sequence[int],
        tokens: Generator[int, None, None],
        prompt: Prompt,
        stops: Sequence[str],
    ) -> None:
        self._tokenizer, self._ends, self._tokens = tokenizer, ends, tokens
        self._most, self._stops = prompt.most, stops
        self.prompt_tokens = len(prompt.ids)
        self.answer_tokens = 0
        self.was_cut = False

    def pieces(self) -> Generator[str, None, None]:
        """Its text without a thought in front of it; closing it ends the answer."""
        with closing(self._tokens), closing(self._texts()) as texts:
            spoken = without_thought(texts, thought_end(self._tokenizer))
            has_stopped = yield from until_stop(spoken, self._stops)
        self.was_cut = self.was_cut and not has_stopped

    def _texts(self) -> Generator[str, None, None]:
        text, token = TextPieces(self._tokenizer), None
        for token in self._tokens:
            self.answer_tokens += 1
            if token not in self._ends and (piece := text.add(token)):
                yield piece
        self.was_cut = token not in self._ends and self.answer_tokens == self._most
        if piece := text.end():
            yield piece


class TextPieces:
    """Tokens to text, as far as the tokens to come cannot change it: up to the last space."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from transformers import TextStreamer

        self._streamer = TextStreamer(tokenizer, skip_special_tokens=True)
        self._streamer.on_finalized_text = self._keep
        self._text = ""

    def _keep(self, text: str, stream_end: bool = False) -> None:
        self._text += text

    def add(self, token: int) -> str:
        import torch

        self._streamer.put(torch.tensor([token]))
        return self._taken()

    def end(self) -> str:
        self._streamer.end()
        return self._taken()

    def _taken(self) -> str:
        text, self._text = self._text, ""
        return text
