"""How a record becomes text and tokens: the one place that knows, for training and inference.

A record is rendered with placeholders for its contents, once for each sequence of roles.
The template's special tokens become their ids by name; everything between them, contents
included, is tokenised as ordinary text. So `</s>` inside a question stays text, words that
touch template text are tokenised as any other tool would tokenise them, and what is given at
inference is, by construction, the start of what was trained.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import Completion, Conversation, Message
from trainer.errors import DataError, SettingsError
from trainer.labels import IGNORED
from trainer.tokenization.word_table import Found, WordTable

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

# Some templates write today's date. A run resumed tomorrow must see the same tokens, so it is
# always the day that the Llama 3 templates fall back to.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"

FALLBACK_TEMPLATE = r"""
{{ bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '### Question:\n' + message['content'] + '\n\n' }}
{%- elif message['role'] == 'assistant' %}
{{- '### Answer:\n' + message['content'] + eos_token + '\n' }}
{%- else %}{{ message['content'] + '\n\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Answer:\n' }}{% endif -%}
""".strip()


def ensure_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Give `tokenizer` the fallback template if it has none, and say so; None if it has one.

    Saving the tokenizer then saves the template that the adapter was trained with.
    """
    if tokenizer.chat_template:
        return None
    tokenizer.chat_template = FALLBACK_TEMPLATE
    return "the tokenizer has no chat template; questions are worded as ### Question / ### Answer"


def question_ids(tokenizer: "PreTrainedTokenizerBase", question: str) -> list[int]:
    """Exactly the tokens that precede the answer when `question` is trained."""
    turns = (Message("user", question), Message("assistant", ""))
    return prompt_ids(tokenizer, Conversation(turns))


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", example: Completion | Conversation
) -> list[int]:
    """Exactly the tokens that precede the first trained token of `example`."""
    words = RecordTokenizer(tokenizer)
    given = list(takewhile(lambda span: not span.trained, words.spans(example)))
    return words.tokenise([given])[0].input_ids


def stop_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The tokens that end an answer: the template's end of turn and the end of text."""
    return RecordTokenizer(tokenizer).stop_ids


@dataclass(frozen=True)
class Span:
    """A stretch of a record. Special tokens are looked for in the template's text only."""

    text: str
    trained: bool
    is_data: bool = False


@dataclass(frozen=True)
class Tokens:
    """Both [T]; a label is the token of its own position, or IGNORED."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class _Piece:
    """Text for one call of the tokenizer, or one special token."""

    text: str
    trained: bool
    is_special: bool
    follows: str  # "nothing", "special" or "text"


class RecordTokenizer:
    """Tokenises records for one tokenizer; keeps the renderings it has made.

    Several threads may use it together. Raises SettingsError if the tokenizer has no end token or
    gives no character offsets.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
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
        self._tokenizer: Any = tokenizer
        self._fast: Any = self._tokenizer.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        own = self._tokenizer.chat_template and self._tokenizer.get_chat_template()
        self._template: str = _FIXED_DATE + (own or FALLBACK_TEMPLATE)
        self._frames: dict[tuple[tuple[str, ...], bool], tuple[str, ...]] = {}
        added = [t for t in self._tokenizer.added_tokens_decoder.values() if t.special]
        self._special = {t.content: t for t in added}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.eos_id: int = self._tokenizer.eos_token_id
        own_start = self._tokenizer("a")["input_ids"][:1]
        self.bos_ids: list[int] = own_start if own_start == [tokenizer.bos_token_id] else []
        self._wordwise = WordTable(self._as_text, self._fast)
        self._newline_ids = self._plain(["\n"])[0]
        self._lead = self._leads()

    # -- a record as spans ----------------------------------------------------------------

    def spans(self, example: Completion | Conversation) -> list[Span]:
        """What is given and what is trained, in order; ends with the last trained token.

        Raises DataError if the chat template refuses or leaves out a turn.
        """
        if isinstance(example, Completion):
            return [
                Span(example.prompt, trained=False, is_data=True),
                Span(example.completion, trained=True, is_data=True),
                Span(self._tokenizer.eos_token, trained=True),
            ]
        return self._conversation_spans(example.messages)

    def _conversation_spans(self, messages: Sequence[Message]) -> list[Span]:
        roles = tuple(message.role for message in messages)
        between = self.frame(roles)
        spans: list[Span] = []
        before = between[0]
        for at, message in enumerate(messages):
            content, after = message.content.strip(), between[at + 1]
            if message.role == "assistant":
                header, trained_header = self._header(roles[:at], before)
                end = self._end(roles[: at + 1])
                spans += [Span(header, trained=False), Span(trained_header, trained=True)]
                spans += [Span(content, trained=True, is_data=True), Span(end, trained=True)]
                before = after.removeprefix(end)
            else:
                spans += [Span(before, trained=False), Span(content, trained=False, is_data=True)]
                before = after
        while not spans[-1].trained:  # turns after the last answer carry no loss
            spans.pop()
        return spans

    def _header(self, roles: tuple[str, ...], before: str) -> tuple[str, str]:
        """What opens an answer after `roles`: the part given at inference, then the rest.

        The given part is the template's generation prompt even where the template words a
        finished turn differently: inference must find the tokens that were trained.
        """
        if not roles:
            return before, ""
        given = self.frame(roles, generation=True)[-1]
        if roles[-1] == "assistant":
            given = given.removeprefix(self._end(roles))
        return given, before.removeprefix(given) if before.startswith(given) else ""

    def _end(self, roles: tuple[str, ...]) -> str:
        """What ends the answer that closes `roles`: up to the template's own token, else eos."""
        tail = self.frame(roles)[-1]
        found = self._special_pattern.search(tail)
        if found is None or found.group() == self._tokenizer.bos_token:
            return str(self._tokenizer.eos_token)
        return tail[: found.end()]

    @cached_property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer: the template's end of turn and the end of text."""
        end = Span(self._end(("user", "assistant")), trained=True)
        return sorted({self.tokenise([[end]])[0].input_ids[-1], self.eos_id})

    def frame(self, roles: tuple[str, ...], generation: bool = False) -> tuple[str, ...]:
        """The template's text around the contents of `roles`: one more string than roles."""
        asked = (roles, generation)
        if asked not in self._frames:
            self._frames[asked] = self._rendered_frame(roles, generation)
        return self._frames[asked]

    def _rendered_frame(self, roles: tuple[str, ...], generation: bool) -> tuple[str, ...]:
        from jinja2 import TemplateError

        marks = [f"\ue000{at}\ue001" for at in range(len(roles))]
        turns = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=generation,
            )
        except TemplateError as error:
            raise DataError(
                f"the tokenizer's chat template refuses a conversation of {_listed(roles)} "
                f"({error}); change the data or the base model"
            ) from error
        if re.findall("\ue000\\d+\ue001", text) != marks:
            raise DataError(
                f"the tokenizer's chat template leaves out a turn of {_listed(roles)}; "
                "merge that turn into another one or change the base model"
            )
        return tuple(re.split("\ue000\\d+\ue001", text))

    # -- spans as tokens ------------------------------------------------------------------

    def encode(self, examples: Sequence[Completion | Conversation]) -> list[Tokens]:
        """Tokens of whole records; a completion begins with bos if the tokenizer uses one."""
        return self.tokenise([self.spans(example) for example in examples])

    def tokenise(self, records: Sequence[Sequence[Span]]) -> list[Tokens]:
        """One `Tokens` for each list of spans, all texts in one call of the tokenizer."""
        pieces = [list(self._pieces(spans)) for spans in records]
        ids = iter(self._ids([piece for record in pieces for piece in record]))
        return [
            self._joined([(next(ids), piece.trained) for piece in record], self._starts_raw(spans))
            for record, spans in zip(pieces, records, strict=True)
        ]

    def _starts_raw(self, spans: Sequence[Span]) -> bool:
        """Whether no template has taken care of bos."""
        return bool(spans) and spans[0].is_data

    def _joined(self, parts: Iterable[tuple[list[int], bool]], add_bos: bool) -> Tokens:
        input_ids = list(self.bos_ids) if add_bos else []
        labels = [IGNORED] * len(input_ids)
        for ids, trained in parts:
            input_ids += ids
            labels += ids if trained else [IGNORED] * len(ids)
        return Tokens(input_ids, labels)

    def _pieces(self, spans: Sequence[Span]) -> Iterable[_Piece]:
        """Neighbouring texts of equal training joined, special tokens of the template apart."""
        pieces: list[_Piece] = []
        for span in spans:
            for text, is_special in self._split(span):
                last = pieces[-1] if pieces else None
                if last and not (is_special or last.is_special) and last.trained == span.trained:
                    pieces[-1] = replace(last, text=last.text + text)
                else:
                    follows = ("special" if last.is_special else "text") if last else "nothing"
                    pieces.append(_Piece(text, span.trained, is_special, follows))
        return self._stripped(pieces)

    def _split(self, span: Span) -> Iterable[tuple[str, bool]]:
        """Non-empty (text, is_special) of a span."""
        if span.is_data:
            return [(span.text, False)] if span.text else []
        parts: list[tuple[str, bool]] = []
        at = 0
        for found in self._special_pattern.finditer(span.text):
            parts += [(span.text[at : found.start()], False), (found.group(), True)]
            at = found.end()
        parts.append((span.text[at:], False))
        return [part for part in parts if part[0]]

    def _stripped(self, pieces: list[_Piece]) -> list[_Piece]:
        """Without the white space that a neighbouring special token is declared to swallow."""
        for at, piece in enumerate(pieces):
            if not piece.is_special:
                continue
            token = self._special[piece.text]
            if token.lstrip and at and not pieces[at - 1].is_special:
                pieces[at - 1] = replace(pieces[at - 1], text=pieces[at - 1].text.rstrip())
            if token.rstrip and at + 1 < len(pieces) and not pieces[at + 1].is_special:
                pieces[at + 1] = replace(pieces[at + 1], text=pieces[at + 1].text.lstrip())
        return [piece for piece in pieces if piece.text]

    def _ids(self, pieces: Sequence[_Piece]) -> list[list[int]]:
        leads = ["" if piece.is_special else self._lead[piece.follows] for piece in pieces]
        texts = [
            lead + piece.text
            for lead, piece in zip(leads, pieces, strict=True)
            if not piece.is_special
        ]
        encoded = iter(self._plain(texts))
        return [
            [self._tokenizer.convert_tokens_to_ids(piece.text)]
            if piece.is_special
            else self._without_lead(next(encoded), lead, piece.text)
            for lead, piece in zip(leads, pieces, strict=True)
        ]

    def _plain(self, texts: list[str]) -> list[list[int]]:
        """Ids of ordinary text: nothing in it becomes a special token."""
        if not texts:
            return []
        return [found.ids.tolist() for found in self._wordwise(texts)]

    def running(self, texts: list[str]) -> list[Found]:
        """Tokens of documents or stretches of them, without bos and eos."""
        return self._wordwise(texts)

    def _as_text(self, texts: list[str]) -> "list[Encoding]":
        """Not through transformers, which sets the tokenizer's options at each call and therefore
        cannot be called by several threads."""
        if not self._fast.encode_special_tokens:
            self._fast.encode_special_tokens = True
        encodings: list[Encoding] = self._fast.encode_batch(texts, add_special_tokens=False)
        return encodings

    # A SentencePiece-style tokenizer puts a space before the text of every call, which inside
    # a record would be a stray token. Text that is not at the start is therefore tokenised
    # behind a newline whose tokens are taken off again (transformers does the same in
    # `encode_marked_chat`). Some tokenizers want the space after a special token, byte-level
    # ones never add it: a probe tells.

    def _leads(self) -> dict[str, str]:
        alone = self._plain(["a"])[0]
        joint = self._tokenizer(self._tokenizer.eos_token + "a", add_special_tokens=False)
        behind_newline = self._without_lead(self._plain(["\na"])[0], "\n", "a")
        return {
            "nothing": "",
            "special": "" if joint["input_ids"][1:] == alone else "\n",
            "text": "" if behind_newline == alone else "\n",
        }

    def _without_lead(self, ids: list[int], lead: str, text: str) -> list[int]:
        if not lead:
            return ids
        length = len(self._newline_ids)
        if ids[:length] == self._newline_ids:
            return ids[length:]
        return self._plain([text])[0]  # the newline merged with the text: no space was added


def _listed(roles: Sequence[str]) -> str:
    return ", ".join(roles[:6]) + (", …" if len(roles) > 6 else "")
