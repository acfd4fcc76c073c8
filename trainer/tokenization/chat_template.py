"""How the turns of a conversation become text: the tokenizer's chat template, or a fallback.

Each conversation is rendered by the template itself, so that what is trained and asked is what the
template writes. A second rendering, with marks around the contents, tells where those stand; it is
used only where it is the first one but for the marks.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import Conversation, Message, Unusable
from trainer.tokenization import template_process
from trainer.tokenization.marks import Marks, Region
from trainer.tokenization.special_tokens import SpecialTokens
from trainer.tokenization.style_probe import style_of
from trainer.tokenization.template_defaults import thinks_by_default
from trainer.tokenization.turns import (
    HIDDEN_CLOSING,
    Turn,
    TurnStyle,
    as_turns,
    has_thoughts,
    thought_of,
    with_system_in_user,
)
from trainer.tokenization.watched_words import is_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates write today's date. A run resumed tomorrow must see the same tokens, so it is
# always the day that the Llama 3 templates fall back to.
FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"

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

# Of conversations that are rendered to look at them.
_WORD, _ANSWER, _THOUGHT = "qquestionq", "qanswerq", "qthoughtq"
MOST_TURNS = 2048  # a template may take a turn's time for each pair of turns


def ensure_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Give `tokenizer` the fallback template if it has none, and say so; None if it has one.

    Saving the tokenizer then saves the template that the adapter was trained with.
    """
    if tokenizer.chat_template:
        return None
    tokenizer.chat_template = FALLBACK_TEMPLATE
    return "the tokenizer has no chat template; questions are worded as ### Question / ### Answer"


@dataclass(frozen=True)
class Rendering:
    """A conversation as the template writes it, and where its contents stand in `text`."""

    messages: tuple[Message, ...]
    text: str
    regions: list[Region]
    dropped: frozenset[int]
    """assistant turns whose thought the template leaves out"""


class ChatTemplate:
    """One tokenizer's template. Several threads may use it together."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", special: SpecialTokens) -> None:
        self._tokenizer: Any = tokenizer
        self._special = special
        own = self._tokenizer.chat_template and self._tokenizer.get_chat_template()
        self._template: str = FIXED_DATE + (own or FALLBACK_TEMPLATE)
        self.thinks: bool = thinks_by_default(self._template)
        """whether an answer that is asked for begins with a thought"""
        self._openings: dict[bool, tuple[str, str]] = {}

    @cached_property
    def style(self) -> TurnStyle:
        return style_of(self.written)

    @cached_property
    def _is_plain(self) -> Callable[[str], bool]:
        try:
            return is_plain(*template_process.watched_words(self._template))
        except template_process.Refused:  # whatever is wrong with it, nothing is known of it
            return lambda _content: False

    def is_plain(self, conversation: Conversation) -> bool:
        """Whether nothing that this conversation says changes what is written around it."""
        return not conversation.tools and all(
            not (m.thought or m.tool_calls or m.role == "tool") and self._is_plain(m.content)
            for m in conversation.messages
        )

    def written(
        self,
        turns: Sequence[Turn],
        tools: Any = None,
        *,
        thinking: bool = False,
        generation: bool = False,
    ) -> str:
        """What the template makes of `turns`. Raises as `_written`."""
        (text,) = self._written([turns], tools, thinking=thinking, generation=generation)
        return text

    def _written(
        self,
        wanted: Sequence[Sequence[Turn]],
        tools: Any = None,
        *,
        thinking: bool = False,
        generation: bool = False,
    ) -> list[str]:
        """The same of several. Raises Unusable for what it refuses, and as
        `template_process.rendered`."""
        try:
            texts = rendered(
                self._tokenizer,
                self._template,
                wanted,
                tools=tools,
                add_generation_prompt=generation,
                enable_thinking=thinking,
            )
        except template_process.Refused as error:
            raise Unusable(f"the chat template refuses it ({_one_line(error)})") from error
        return [text.replace(HIDDEN_CLOSING, "</think>") for text in texts]

    def render(self, conversation: Conversation) -> Rendering:
        """Raises Unusable where the template refuses a turn or leaves one out."""
        messages = conversation.messages
        if len(messages) > MOST_TURNS:
            raise Unusable(f"it has {len(messages):,} turns; at most {MOST_TURNS:,} are rendered")
        if not self.style.has_system:
            messages = with_system_in_user(messages)
        tools = json.loads(conversation.tools) if conversation.tools else None
        thinking = has_thoughts(conversation)
        marks = Marks([conversation.tools, *map(_said, messages)])
        turns = as_turns(messages, self.style, _unmarked)
        marked = as_turns(messages, self.style, marks.put)
        text, other = self._written([turns, marked], tools, thinking=thinking)
        found, regions = marks.take(other)
        if found != text:
            raise Unusable("the chat template words its turns by what they say")
        return Rendering(messages, text, regions, _dropped(messages, marks.lost(regions)))

    def opening(self, thinking: bool) -> tuple[str, str]:
        """What the template writes behind a question to ask for an answer: (all of it, what of it
        a question without an answer lacks)."""
        if thinking not in self._openings:
            self._openings[thinking] = self._opening(thinking)
        return self._openings[thinking]

    def _opening(self, thinking: bool) -> tuple[str, str]:
        turns = as_turns((Message("user", _WORD),), self.style, _unmarked)
        try:
            asked = self.written(turns, thinking=thinking, generation=True)
            without = self.written(turns, thinking=thinking)
        except Unusable:
            return "", ""
        shared = len(shared_start(asked, without))
        for token in self._special.all_in(asked):  # two may begin alike
            if token.start() < shared < token.end():
                shared = token.start()
        return asked.rpartition(_WORD)[2], asked[shared:]

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The tokens that end an answer: of the last one, and of one that is followed by a question
        where that is another. None where the template writes none."""
        user, answer = Message("user", _WORD), Message("assistant", _ANSWER)
        found = [
            self._behind_answer((user, answer)),
            self._behind_answer((user, answer, user, answer)),
        ]
        if own := self.end_in(shared_start(*found)):
            return (own,)
        firsts = [self._special.first_in(behind) for behind in found]
        return tuple(dict.fromkeys(first.group() for first in firsts if first))

    @cached_property
    def thought_end(self) -> str:
        """The text between a thought and the answer; empty where the template knows no thoughts."""
        conversation = Conversation(
            (Message("user", _WORD), Message("assistant", _ANSWER, thought=_THOUGHT))
        )
        try:
            text = self.render(conversation).text
        except Unusable:
            return ""
        return text.partition(_THOUGHT)[2].partition(_ANSWER)[0]

    def _behind_answer(self, messages: tuple[Message, ...]) -> str:
        """The text between the first answer and what follows it, without a token that begins."""
        try:
            text = self.written(as_turns(messages, self.style, _unmarked))
        except Unusable:
            return ""
        behind = text.partition(_ANSWER)[2].partition(_WORD)[0]
        return behind.partition(self._special.bos_token or "\0")[0]

    def end_in(self, behind: str) -> str:
        """From the first special token of a text to its last."""
        tokens = list(self._special.all_in(behind))
        return behind[tokens[0].start() : tokens[-1].end()] if tokens else ""


def rendered(
    tokenizer: Any, template: str, wanted: Sequence[Sequence[Turn]], **variables: Any
) -> list[str]:
    """What `apply_chat_template` gives as texts. Raises as `template_process.rendered`."""
    given = {"tools": None, "documents": None} | tokenizer.special_tokens_map | variables
    conversations = ([_as_given(turn) for turn in turns] for turns in wanted)
    return template_process.rendered(
        template, *(given | {"messages": turns} for turns in conversations)
    )


def _as_given(turn: Turn) -> Turn:
    """As transformers gives it: without what is None, and gpt-oss reads a thought by a name of its
    own."""
    given = {name: value for name, value in turn.items() if value is not None}
    return (
        {"thinking": given["reasoning_content"], **given} if "reasoning_content" in given else given
    )


def shared_start(one: str, other: str) -> str:
    """The longest text with which both begin."""
    length = min(len(one), len(other))
    at = next((at for at in range(length) if one[at] != other[at]), length)
    return one[:at]


def _dropped(messages: Sequence[Message], lost: Mapping[int, int]) -> frozenset[int]:
    """The answers whose thought alone is lost; `lost` counts the parts of a message that are.
    Raises Unusable where something else is."""
    for at, parts in lost.items():
        if not (messages[at].role == "assistant" and thought_of(messages[at]) and parts == 1):
            raise Unusable(f"the chat template leaves out its turn {at + 1} ({messages[at].role})")
    return frozenset(lost)


def _said(message: Message) -> str:
    """All words of a turn that a template may write."""
    calls = (word for call in message.tool_calls for word in (call.name, call.arguments, call.id))
    return "".join((message.content, message.thought, message.name, message.call_id, *calls))


def _unmarked(_message: int, text: str) -> str:
    return text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
