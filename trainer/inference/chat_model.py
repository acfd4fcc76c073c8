"""A fine-tuned model that answers questions."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import Message
from trainer.dataset.domain import Domain
from trainer.engine.prompt import Prompt
from trainer.errors import DataError, SettingsError
from trainer.inference.as_merged import compute_as_merged
from trainer.inference.generate import Decoder, choose_decoder
from trainer.inference.reply import CUT
from trainer.inference.streamed_answer import StreamedAnswer
from trainer.inference.together import Together
from trainer.models import adapters, load
from trainer.runtime import device, lean_imports
from trainer.settings import Settings
from trainer.tokenization.record_tokenizer import question_ids, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MAX_CHAT_ANSWER_TOKENS = 512  # a person who reads along can end an answer at any time


@dataclass(frozen=True)
class Manner:
    """How somebody wants an answer: at most how long, drawn or not (see `Prompt`), and texts that
    end it."""

    most: int = MAX_CHAT_ANSWER_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()


USUAL = Manner()


@dataclass(frozen=True)
class ChatModel:
    """A base model with an adapter, ready to answer."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    engine: bool = True
    """whether our own loop answers where it can"""
    remembers: bool = False
    """Whether it was trained on questions that follow others"""
    warnings: tuple[str, ...] = ()
    """What its run says that one should know of it"""
    domain: Domain | None = None
    """What the adapter answers from; whatever else it is asked is refused, as it says"""
    together: Together | None = None
    """What answers the questions of several at once; else one is answered at a time, here"""

    @cached_property
    def decoder(self) -> Decoder:
        """Of the adapter that is active when this is called first."""
        pad = self.tokenizer.pad_token_id
        return choose_decoder(self.model, self.ends, pad, engine=self.engine)

    @cached_property
    def ends(self) -> list[int]:
        return stop_ids(self.tokenizer)

    def stream(
        self,
        asked: str | Sequence[Message],
        how: Manner = USUAL,
        *,
        tuned: bool = True,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> Generator[str, None, None]:
        """The answer to a question, or to turns that end with one, piece by piece as it is
        generated; the base's own if not `tuned`. One that is cut ends with `CUT`.

        Closing it ends the generation, and so does `is_ended`, which is asked after each token.
        Raises DataError for a question that is too long.
        """
        answer = self.answer(asked, how, tuned=tuned, is_ended=is_ended)
        with closing(answer.pieces()) as pieces:
            yield from pieces
        if answer.was_cut:
            yield CUT

    def answer(
        self,
        asked: str | Sequence[Message],
        how: Manner = USUAL,
        *,
        tuned: bool = True,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> StreamedAnswer:
        """As `stream`, with what else is known of it. Nothing is computed before its first piece is
        asked for. Raises DataError for a question that is too long."""
        ids = question_ids(self.tokenizer, asked)
        config = self.model.config.get_text_config()
        # None where positions have no end.
        longest = getattr(config, "max_position_embeddings", None)
        room = (longest or len(ids) + how.most) - len(ids)
        if room < 1:
            what, step = "question", "shorten it"
            if not isinstance(asked, str) and len(asked) > 1:
                what, step = "conversation", "/new begins another one"
            raise DataError(f"the {what} has {len(ids)} tokens, more than the model reads; {step}")
        prompt = Prompt(ids, min(room, how.most), how.temperature, how.top_p)
        if tuned and self.domain is not None and self.domain.refuses(asked):
            tokens = self._spelled(self.domain.refusal, prompt.most)
        elif self.together is None:
            tokens = _until(self.decoder.stream(prompt, tuned=tuned), is_ended)
        else:
            tokens = self.together.tokens(self.decoder, prompt, tuned=tuned, is_ended=is_ended)
        return StreamedAnswer(self.tokenizer, self.ends, tokens, prompt, how.stops)

    def _spelled(self, answer: str, most: int) -> Generator[int, None, None]:
        """The tokens of an answer that no model gives."""
        yield from [*self.tokenizer(answer, add_special_tokens=False).input_ids, *self.ends[:1]][
            :most
        ]


def _until(tokens: Iterator[int], is_ended: Callable[[], bool]) -> Generator[int, None, None]:
    for token in tokens:
        yield token
        if is_ended():
            return


def load_chat_model(
    where: str, settings: Settings, base_model: str | None, form: str = "nf4"
) -> ChatModel:
    """The adapter at `where` on its base, as `find_adapter` finds them, ready to answer.

    `form` is "nf4", as it was trained, "16bit" for the base in its own weights, or "merged", which
    computes as what `merge` writes.
    """
    adapter = _found(where, settings, base_model)
    tuned = adapter.attach(_base_of(adapter, settings, form)).eval()
    if form == "merged":
        compute_as_merged(tuned, adapter.base.stored_dtype())
    return _chat_model(tuned, adapter, settings)


def load_chat_models(
    where: Mapping[str, str], settings: Settings, base_model: str | None
) -> dict[str, ChatModel]:
    """Adapters by name, from where they are, on one base. All may be asked at once.

    Raises SettingsError where they were not trained on the same.
    """
    found = {name: _found(place, settings, base_model) for name, place in where.items()}
    (first_name, first), *others = found.items()
    for name, adapter in others:
        if (adapter.base.name, adapter.base.revision) != (first.base.name, first.base.revision):
            raise SettingsError(
                f"{name} was trained on {adapter.base.name}, {first_name} on {first.base.name}; "
                "adapters that are served together have one base"
            )
    together, models = Together(), {}
    tuned = _base_of(first, settings, "nf4")
    for number, (name, adapter) in enumerate(found.items()):
        in_peft = f"adapter_{number}"  # where a name is part of a module's path
        tuned = adapter.attach(tuned, in_peft).eval()
        tuned.set_adapter(in_peft)
        models[name] = replace(_chat_model(tuned, adapter, settings), together=together)
        _ = models[name].decoder  # made while its adapter is the active one
    return models


def _found(where: str, settings: Settings, base_model: str | None) -> adapters.Adapter:
    lean_imports.import_bitsandbytes()
    import peft  # noqa: F401

    lean_imports.collect_as_usual()
    return adapters.find_adapter(where, settings, base_model)


def _base_of(adapter: adapters.Adapter, settings: Settings, form: str) -> Any:
    from trainer.models.streamed_base import to_answer

    found = device.find_device()
    precision = device.choose_precision(settings.precision, found)
    base = adapter.base
    if form == "16bit":
        return load.load_16bit(base, settings, precision, found)
    return load.load_base(base, settings, precision, found, to_answer(base, settings, found))


def _chat_model(tuned: Any, adapter: adapters.Adapter, settings: Settings) -> ChatModel:
    domain = adapter.domain if settings.refuses else None
    if domain is not None:
        log.info(
            "what its documents do not speak of, by their words, is answered: %s "
            "(QLORA_REFUSAL=never has the model answer)",
            domain.refusal,
        )
    return ChatModel(
        tuned,
        adapter.tokenizer(),
        adapter.base.name,
        settings.engine != "stock",
        adapter.remembers,
        adapter.warnings,
        domain,
    )
