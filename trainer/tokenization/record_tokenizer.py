"""How a record becomes tokens: the one place that knows, for training and inference.

The template's special tokens become their ids by name; everything between them, contents
included, is tokenised as ordinary text. So `</s>` inside a question stays text, words that
touch template text are tokenised as any other tool would tokenise them, and what is given at
inference is, by construction, the start of what was trained.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import (
    Completion,
    Conversation,
    Example,
    Message,
    ToolCall,
    Unusable,
    as_unusable,
)
from trainer.errors import DataError, SettingsError
from trainer.labels import IGNORED
from trainer.tokenization.chat_template import ChatTemplate, rendered
from trainer.tokenization.framed_text import FramedText, frame_in
from trainer.tokenization.loss_mask import LossMask
from trainer.tokenization.plain_text import PlainTextTokenizer
from trainer.tokenization.special_tokens import Segment, Span, SpecialTokens
from trainer.tokenization.template_defaults import (
    with_opening,
    with_system_prompt,
    with_thinking,
)
from trainer.tokenization.template_process import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def question_ids(
    tokenizer: "PreTrainedTokenizerBase", asked: str | Sequence[Message], tools: str = ""
) -> list[int]:
    """Exactly the tokens that precede the answer when `asked` is trained, a question or turns that
    end with one: what `apply_chat_template` gives with a generation prompt. Raises DataError if
    the chat template refuses them."""
    turns = (Message("user", asked),) if isinstance(asked, str) else asked
    records = tokenizer_of_records(tokenizer)
    return records.tokenise([records.prompt(turns, tools)])[0].input_ids


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", example: Completion | Conversation
) -> list[int]:
    """Exactly the tokens that precede the last answer of `example`, or its completion."""
    if isinstance(example, Conversation):
        return question_ids(tokenizer, example.messages[:-1], example.tools)
    records = tokenizer_of_records(tokenizer)
    (spans,) = records.spans(example)
    return records.tokenise([list(takewhile(lambda span: not span.trained, spans))])[0].input_ids


def stop_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The tokens that end an answer: the template's end of turn and the end of text."""
    return tokenizer_of_records(tokenizer).stop_ids


def give_system_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> None:
    """From now on a conversation without a system turn has this one, wherever `tokenizer` is used,
    and wherever what it saves is. It has a chat template."""
    has_system = tokenizer_of_records(tokenizer).template.style.has_system
    own = tokenizer.get_chat_template()
    tokenizer.chat_template = with_system_prompt(own, prompt, has_system)


def settle_answers(tokenizer: "PreTrainedTokenizerBase", *, thinks: bool) -> None:
    """From now on an answer is asked for as it was trained, with a thought in front of it or
    without one, wherever `tokenizer` is used, and wherever what it saves is."""
    own = tokenizer.get_chat_template()
    if thinks or "enable_thinking" in own:
        tokenizer.chat_template = with_thinking(own, thinks)
    records = tokenizer_of_records(tokenizer)
    asked, trained = records.openings()
    if asked and asked != trained:
        tokenizer.chat_template = with_opening(tokenizer.get_chat_template(), asked, trained)


def answer_of(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of generated tokens without the thought in front of it; empty where that does not
    end."""
    return tokenizer_of_records(tokenizer).answer(list(ids))


def thought_end(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What stands between the thought of an answer and itself, as text without special tokens;
    empty where answers do not begin with a thought."""
    records = tokenizer_of_records(tokenizer)
    if not records.template.thinks:
        return ""
    closing = [Span(records.template.thought_end or "</think>", trained=True)]
    ids = records.tokenise([closing])[0].input_ids
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def tokenizer_of_records(tokenizer: "PreTrainedTokenizerBase") -> "RecordTokenizer":
    """That of a tokenizer as it is now: what was found out about its template is kept."""
    state = (tokenizer.chat_template, len(tokenizer))
    for kept, kept_state, found in list(_LAST):
        if kept is tokenizer and kept_state == state:
            return found
    made = RecordTokenizer(tokenizer)
    _LAST.appendleft((tokenizer, state, made))
    return made


# (tokenizer, what it was like, what was made for it): a server has one for each adapter.
_LAST: deque[tuple[Any, Any, "RecordTokenizer"]] = deque(maxlen=8)


@dataclass(frozen=True)
class LabelledTokens:
    """Both [T]; a label is the token of its own position, or IGNORED."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class EncodedRecord:
    """The sequences of a record; none, and why, where the chat template refuses it."""

    sequences: list[LabelledTokens]
    refused: str = ""


def _frames(tokenizer: Any) -> str:
    """The template, and what it makes of a few turns: it may put its tokens together, of a role."""
    if not tokenizer.chat_template:
        return ""
    found = [str(tokenizer.get_chat_template())]
    pair = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
    for turns in (pair, pair[:1], [{"role": "system", "content": "a"}, *pair]):
        asks = turns[-1]["role"] == "user"
        with suppress(Refused):
            found += rendered(tokenizer, found[0], [turns], add_generation_prompt=asks)
    return "\n".join(found)


@dataclass(frozen=True)
class _Spans:
    spans: list[list[Span]]
    refused: str = ""


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
        self._special = SpecialTokens(tokenizer, _frames(self._tokenizer))
        self.template = ChatTemplate(tokenizer, self._special)
        self._framed = FramedText(self.template, self._special)
        self._mask = LossMask(self.template, self._special, self._tokenizer.eos_token)
        self.plain = PlainTextTokenizer(tokenizer, self._special.not_called_special)

    @cached_property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer: the template's end of turn and the end of text."""
        ends = {self.eos_id, *(self._last_trained() or ())}
        # a template may end an answer with what opens the next question
        for end in self.template.ends[:1]:
            ends.add(self.tokenise([[Span(end, trained=True)]])[0].input_ids[-1])
        return sorted(ends | self._ends_of_calls())

    def _ends_of_calls(self) -> set[int]:
        call = ToolCall("a", "{}")
        both = self._last_trained(call, call)
        # some templates write one at a time
        return both if both is not None else self._last_trained(call) or set()

    def _last_trained(self, *calls: ToolCall) -> set[int] | None:
        """The token that ends calls, empty where it ends each of them; None where the template
        refuses them."""
        answer = Message("assistant", "" if calls else "a", tool_calls=calls)
        (found,) = self.encode([Conversation((Message("user", "a"), answer))])
        if not found.sequences:
            return None
        labels = found.sequences[-1].labels
        return {labels[-1]} if labels.count(labels[-1]) == 1 else set()

    def spans(self, example: Completion | Conversation) -> list[list[Span]]:
        """As `LossMask.spans`."""
        return self._mask.spans(example)

    def prompt(self, turns: Sequence[Message], tools: str = "") -> list[Span]:
        """What is given before the answer to `turns`. Raises DataError if the chat template refuses
        them."""
        thought = "a" if self.template.thinks else ""
        answer = Message("assistant", "a", thought=thought)
        try:
            return self._mask.prompt(Conversation((*turns, answer), tools))
        except Unusable as refused:
            roles = ", ".join(turn.role for turn in turns[:6])
            raise DataError(
                f"a conversation of {roles} cannot be asked: {refused}; change it or the base model"
            ) from refused

    def openings(self) -> tuple[str, str]:
        """What follows a question where an answer is asked for: (as the template says, as it is
        trained)."""
        question = "qquestionq"
        asked, _ = self.template.opening(self.template.thinks)
        spans = self.prompt((Message("user", question),))
        return asked, "".join(span.text for span in spans).rpartition(question)[2]

    def answer(self, ids: list[int]) -> str:
        """As `answer_of`."""
        closing = self.template.thought_end
        run = self.template.end_in(closing)
        if run:
            wanted = self.tokenise([[Span(run, trained=True)]])[0].input_ids
            found = [at for at in range(len(ids)) if ids[at : at + len(wanted)] == wanted]
            is_open = self.template.thinks and not found
            ids = [] if is_open else ids[found[-1] + len(wanted) :] if found else ids
            return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
        _, mark, answer = text.rpartition(closing.strip() or "</think>")
        if mark:
            return answer.strip()
        return "" if self.template.thinks else text.strip()

    def recognised(self, example: Example) -> Example:
        """The conversation that a text or a completion is, where this template frames it already;
        else itself."""
        if isinstance(example, Conversation) or not frame_in(example):
            return example
        return self._framed.as_conversation(example) or example

    def encode(self, examples: Sequence[Completion | Conversation]) -> list[EncodedRecord]:
        """Tokens of whole records; a completion begins with bos if the tokenizer uses one."""
        spans = [self._spans_or_reason(example) for example in examples]
        sequences = iter(self.tokenise([one for found in spans for one in found.spans]))
        return [
            EncodedRecord([next(sequences) for _ in found.spans], found.refused) for found in spans
        ]

    def _spans_or_reason(self, example: Completion | Conversation) -> "_Spans":
        try:
            return _Spans(self.spans(example))
        except Exception as error:
            return _Spans([], str(as_unusable(error, "conversation")))

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
        """Each text once: most are the template's, the same in every record."""
        texts = list(dict.fromkeys((s.text, s.follows) for s in segments if not s.is_special))
        found = dict(zip(texts, self.plain.ids(texts), strict=True))
        special = {s.text for s in segments if s.is_special}
        alone = {text: [self._tokenizer.convert_tokens_to_ids(text)] for text in special}
        return [
            alone[segment.text] if segment.is_special else found[segment.text, segment.follows]
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
