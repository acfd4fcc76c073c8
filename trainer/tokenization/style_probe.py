"""What one chat template reads of a turn, found out by rendering conversations of known words."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from trainer.corpus.examples import Message, ToolCall, Unusable
from trainer.tokenization.turns import TurnStyle, as_turns

Write = Callable[..., str]

_SYSTEM, _USER = Message("system", "qsystemq"), Message("user", "quserq")
_ANSWER = Message("assistant", "qanswerq")
_OWN = Message("assistant", "qanswerq", thought="qthoughtq")
_INLINE = Message("assistant", "<think>\nqthoughtq\n</think>\n\nqanswerq")
_CALL = Message(
    "assistant", "", tool_calls=(ToolCall("qnameq", '{"qkeyq": "qvalueq"}', "call00001"),)
)
_RESULT = Message("tool", "qresultq", call_id="call00001", name="qnameq")


def style_of(write: Write) -> TurnStyle:
    """`write` is `ChatTemplate.written`."""
    probe = _Probe(write)
    parts = not probe.finds(TurnStyle(), (_USER, _ANSWER), "quserq", "qanswerq") and probe.finds(
        TurnStyle(content_is_parts=True), (_USER, _ANSWER), "quserq", "qanswerq"
    )
    plain = TurnStyle(content_is_parts=parts)
    has_system = probe.finds(plain, (_SYSTEM, _USER, _ANSWER), "qsystemq", "quserq")
    inline, own = _thoughts(probe, parts)
    style = TurnStyle(has_system, parts, inline, own)
    return _with_calls(probe, style)


class _Probe:
    def __init__(self, write: Write) -> None:
        self._write = write

    def text(self, style: TurnStyle, messages: tuple[Message, ...]) -> str:
        """ "" where the template refuses."""
        thinking = any("qthoughtq" in m.content + m.thought for m in messages)
        try:
            return self._write(as_turns(messages, style, _unmarked), thinking=thinking)
        except Unusable:
            return ""

    def finds(self, style: TurnStyle, messages: tuple[Message, ...], *words: str) -> bool:
        text = self.text(style, messages)
        return all(word in text for word in words)


def _thoughts(probe: _Probe, parts: bool) -> tuple[str, str]:
    """How a thought is given that stands in the content, and one of its own."""

    def written(way: str, answer: Message) -> str:
        style = TurnStyle(content_is_parts=parts, inline_thought=way, own_thought=way)
        text = probe.text(style, (_USER, answer))
        return text if "qthoughtq" in text and "qanswerq" in text else ""

    field, inline = written("field", _OWN), written("inline", _INLINE)
    if field:
        # a template that knows the thought in the content writes the same of both
        is_known = inline.split() == field.split() or _glued(inline) == _glued(field)
        return ("inline" if is_known else "field"), "field"
    return ("inline", "inline") if inline else ("hidden", "hidden")


def _glued(text: str) -> str:
    return "".join(text.split())


def _with_calls(probe: _Probe, style: TurnStyle) -> TurnStyle:
    conversation = (_USER, _CALL, _RESULT, _ANSWER)
    words = ("qnameq", "qkeyq", "qvalueq", "qresultq", "qanswerq")
    for content, is_text in product(("", None), (False, True)):
        tried = replace(style, arguments_are_text=is_text, content_beside_calls=content)
        if probe.finds(tried, conversation, *words):
            return tried
    return replace(style, has_calls=False)


def _unmarked(_message: int, text: str) -> str:
    return text
