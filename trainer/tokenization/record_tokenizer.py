"""How a record becomes tokens: the one place that knows, for training and inference.

The template's special tokens become their ids by name; everything between them, contents
included, is tokenised as ordinary text. So `</s>` inside a question stays text, words that
touch template text are tokenised as any other tool would tokenise them, and what is given at
inference is, by construction, the start of what was trained.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import Completion, Conversation, Message
from trainer.errors import SettingsError
from trainer.labels import IGNORED
from trainer.tokenization.chat_template import ChatTemplate
from trainer.tokenization.loss_mask import spans_of
from trainer.tokenization.plain_text import PlainTextTokenizer
from trainer.tokenization.special_tokens import Segment, Span, SpecialTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def question_ids(tokenizer: "PreTrainedTokenizerBase", question: str) -> list[int]:
    """Exactly the tokens that precede the answer when `question` is trained."""
    turns = (Message("user", question), Message("assistant", ""))
    return prompt_ids(tokenizer, Conversation(turns))


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", example: Completion | Conversation
) -> list[int]:
    """Exactly the tokens that precede the first trained token of `example`."""
    records = RecordTokenizer(tokenizer)
    given = list(takewhile(lambda span: not span.trained, records.spans(example)))
    return records.tokenise([given])[0].input_ids


def stop_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The tokens that end an answer: the template's end of turn and the end of text."""
    return RecordTokenizer(tokenizer).stop_ids


@dataclass(frozen=True)
class LabelledTokens:
    """Both [T]; a label is the token of its own position, or IGNORED."""

    input_ids: list[int]
    labels: list[int]


class RecordTokenizer:
    """Tokenises records for one tokenizer.

    Several threads may use it together. Raises SettingsError if the tokenizer has no end token or
    gives no character offsets.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        _check(tokenizer)
        self._tokenizer: Any = tokenizer
        self.eos_id: int = self._tokenizer.eos_token_id
        own_start = self._tokenizer("a")["input_ids"][:1]
        self.bos_ids: list[int] = own_start if own_start == [tokenizer.bos_token_id] else []
        self._special = SpecialTokens(tokenizer)
        self.template = ChatTemplate(tokenizer, self._special)
        self.plain = PlainTextTokenizer(tokenizer)

    @cached_property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer: the template's end of turn and the end of text."""
        end = Span(self.template.answer_end(("user", "assistant")), trained=True)
        return sorted({self.tokenise([[end]])[0].input_ids[-1], self.eos_id})

    def spans(self, example: Completion | Conversation) -> list[Span]:
        """As `loss_mask.spans_of`."""
        return spans_of(example, self.template, self._tokenizer.eos_token)

    def encode(self, examples: Sequence[Completion | Conversation]) -> list[LabelledTokens]:
        """Tokens of whole records; a completion begins with bos if the tokenizer uses one."""
        return self.tokenise([self.spans(example) for example in examples])

    def tokenise(self, records: Sequence[Sequence[Span]]) -> list[LabelledTokens]:
        """Those of each list of spans, all texts in one call of the tokenizer."""
        segments = [self._special.segments(spans) for spans in records]
        ids = iter(self._ids([segment for record in segments for segment in record]))
        return [
            self._joined([(next(ids), segment.trained) for segment in record], _starts_raw(spans))
            for record, spans in zip(segments, records, strict=True)
        ]

    def _joined(self, parts: Iterable[tuple[list[int], bool]], add_bos: bool) -> LabelledTokens:
        input_ids = list(self.bos_ids) if add_bos else []
        labels = [IGNORED] * len(input_ids)
        for ids, trained in parts:
            input_ids += ids
            labels += ids if trained else [IGNORED] * len(ids)
        return LabelledTokens(input_ids, labels)

    def _ids(self, segments: Sequence[Segment]) -> list[list[int]]:
        texts = [(segment.text, segment.follows) for segment in segments if not segment.is_special]
        found = iter(self.plain.ids(texts))
        return [
            [self._tokenizer.convert_tokens_to_ids(segment.text)]
            if segment.is_special
            else next(found)
            for segment in segments
        ]


def _starts_raw(spans: Sequence[Span]) -> bool:
    """Whether no template has taken care of bos."""
    return bool(spans) and spans[0].is_data


def _check(tokenizer: "PreTrainedTokenizerBase") -> None:
    if not tokenizer.is_fast:
        raise SettingsError(
            "the base model's tokenizer gives no character offsets; "
            "choose a BASE_MODEL with a tokenizer.json"
        )
    if tokenizer.eos_token_id is None:
        raise SettingsError(
            "the base model's tokenizer has no end token, so answers could not end; "
            "choose another BASE_MODEL"
        )
