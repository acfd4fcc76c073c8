"""A fine-tuned model that answers questions."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import Message
from trainer.errors import DataError
from trainer.inference.as_merged import compute_as_merged
from trainer.inference.generate import Answerer
from trainer.inference.thoughts import without_thought
from trainer.models import adapters, load
from trainer.runtime import device, lean_imports
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import question_ids, thought_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT = " …"  # ends an answer that the limit of tokens ended
MAX_CHAT_ANSWER_TOKENS = 512  # a person who reads along can end an answer at any time


@dataclass(frozen=True)
class ChatModel:
    """A base model with an adapter, ready to answer one question at a time."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    engine: bool = True
    """whether our own loop answers where it can"""
    remembers: bool = False
    """Whether it was trained on questions that follow others"""

    @cached_property
    def answerer(self) -> Answerer:
        return Answerer(self.model, self.tokenizer, engine=self.engine)

    def stream(
        self,
        asked: str | Sequence[Message],
        *,
        tuned: bool = True,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> Generator[str, None, None]:
        """The greedy answer to a question, or to turns that end with one, piece by piece as it is
        generated; the base's own if not `tuned`. One that is cut ends with `CUT`.

        Closing it ends the generation, and so does `is_ended`, which is asked after each token.
        Raises DataError for a question that is too long.
        """
        ids = question_ids(self.tokenizer, asked)
        config = self.model.config.get_text_config()
        # None where positions have no end.
        longest = getattr(config, "max_position_embeddings", None)
        room = (longest or len(ids) + MAX_CHAT_ANSWER_TOKENS) - len(ids)
        if room < 1:
            what, step = "question", "shorten it"
            if not isinstance(asked, str) and len(asked) > 1:
                what, step = "conversation", "/new begins another one"
            raise DataError(f"the {what} has {len(ids)} tokens, more than the model reads; {step}")
        most = min(room, MAX_CHAT_ANSWER_TOKENS)
        with closing(self._pieces(ids, most, tuned, is_ended)) as pieces:
            yield from without_thought(pieces, thought_end(self.tokenizer))

    def _pieces(
        self, ids: Sequence[int], most: int, tuned: bool, is_ended: Callable[[], bool]
    ) -> Generator[str, None, None]:
        text = TextPieces(self.tokenizer)
        with closing(self.answerer.stream(ids, most, tuned=tuned)) as tokens:
            made = 0
            for token in tokens:
                made += 1
                if piece := text.add(token):
                    yield piece
                if is_ended():
                    break
        if piece := text.end():
            yield piece
        if made == most:  # the token that ends an answer is not among them
            yield CUT


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


def load_chat_model(
    where: str, settings: Settings, base_model: str | None, form: str = "nf4"
) -> ChatModel:
    """The adapter at `where` on its base, as `find_adapter` finds them, ready to answer.

    `form` is "nf4", as it was trained, "16bit" for the base in its own weights, or "merged", which
    computes as what `merge` writes.
    """
    lean_imports.import_bitsandbytes()
    import peft  # noqa: F401

    lean_imports.collect_as_usual()
    adapter = adapters.find_adapter(where, settings, base_model)
    found = device.find_device()
    precision = device.choose_precision(settings.precision, found)
    loaded = load.load_16bit if form == "16bit" else load.load_base
    base = loaded(adapter.base, settings, precision, found)
    tuned = adapter.attach(base).eval()
    if form == "merged":
        compute_as_merged(tuned, adapter.base.stored_dtype())
    engine = settings.engine != "stock"
    return ChatModel(tuned, adapter.tokenizer(), adapter.base.name, engine, adapter.remembers)
