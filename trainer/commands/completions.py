"""OpenAI's chat completions: what is read of a request, and the objects that answer it.

Fields that are not known are ignored, as every server does, but for those whose asker would read an
answer of another form than it has. A message's content is a text or a list of parts that are text.
"""

import json
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.commands.admission import Limits
from trainer.commands.loopback import RequestRefused, object_in
from trainer.corpus.examples import Message
from trainer.inference.chat_model import USUAL, Manner
from trainer.inference.streamed_answer import StreamedAnswer

Record = dict[str, Any]
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_STOPS, LONGEST_STOP = 16, 500  # texts that end an answer, compared with each piece of it
HOTTEST = 2.0  # temperature
# What changes an answer's form and is not done, beside what asks for nothing.
NOT_DONE: dict[str, tuple[Any, ...]] = {
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "response_format": (None, {}, {"type": "text"}),
    "tools": (None, []),
    "functions": (None, []),
}


@dataclass(frozen=True)
class Request:
    """`model` is one of the names of the server, its first where none is given."""

    model: str
    turns: tuple[Message, ...]
    how: Manner
    streams: bool
    counts: bool
    """whether a stream ends with how many tokens there were"""
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))


def most_bytes(limits: Limits) -> int:
    """Of a request; JSON writes one character in six bytes."""
    return 6 * limits.messages + 9000


def too_long(limits: Limits) -> str:
    return f"messages have at most {limits.messages} characters together"


def request_in(body: bytes, names: Collection[str], limits: Limits) -> Request:
    """Raises RequestRefused for what cannot be answered."""
    record = object_in(body)
    model = record.get("model") or next(iter(names))
    if not isinstance(model, str) or model not in names:
        known = ", ".join(names)
        raise RequestRefused(404, f"{model!r} is not here, only {known}", code="model_not_found")
    turns = _turns(record.get("messages"))
    if sum(len(turn.content) for turn in turns) > limits.messages:
        raise RequestRefused(413, too_long(limits))
    if record.get("n") not in (None, 1):
        raise RequestRefused(400, "n: one answer is given to a request")
    for name, nothing in NOT_DONE.items():
        if record.get(name) not in nothing:
            raise RequestRefused(
                400, f"{name}: not done here, an answer is plain text; leave it out"
            )
    options = record.get("stream_options")
    counts = isinstance(options, dict) and options.get("include_usage") is True
    return Request(model, turns, _manner(record, limits), record.get("stream") is True, counts)


def _turns(given: Any) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise RequestRefused(400, 'messages: a list such as [{"role": "user", "content": "…"}]')
    turns = tuple(_turn(message) for message in given)
    if turns[-1].role != "user":
        raise RequestRefused(400, "messages: the last is the user's, which is answered")
    return turns


def _turn(given: Any) -> Message:
    role, content = (
        (given.get("role"), given.get("content")) if isinstance(given, dict) else (None, None)
    )
    if not isinstance(role, str) or role not in ROLES:
        raise RequestRefused(400, f"messages: a role is one of {', '.join(ROLES)}")
    if isinstance(content, list):
        parts: list[Any] = [
            part.get("text") if isinstance(part, dict) else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str) or not (content.strip() or role == "system"):
        raise RequestRefused(400, f"messages: the content of {role} is a text that is not empty")
    return Message(ROLES[role], content)


def _manner(record: Record, limits: Limits) -> Manner:
    """`max_completion_tokens` and `max_tokens` are two names of one thing."""
    most = record.get("max_completion_tokens")
    most = record.get("max_tokens") if most is None else most
    how = USUAL if most is None else replace(USUAL, most=_whole("max_tokens", most))
    stops = record.get("stop") or ()
    stops = (stops,) if isinstance(stops, str) else tuple(stops) if isinstance(stops, list) else ()
    if len(stops) > MOST_STOPS or not all(
        isinstance(stop, str) and 0 < len(stop) <= LONGEST_STOP for stop in stops
    ):
        each = f"of up to {LONGEST_STOP} characters"
        raise RequestRefused(400, f"stop: a text or a list of at most {MOST_STOPS}, {each}")
    return Manner(
        min(how.most, limits.answer_tokens),
        _number(record, "temperature", 0.0, HOTTEST),
        _number(record, "top_p", 1.0, 1.0),
        stops,
    )


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RequestRefused(400, f"{name}: a whole number of at least 1")
    return value


def _number(record: Record, name: str, usual: float, most: float) -> float:
    value = record.get(name)
    if value is None:
        return usual
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:  # which NaN and infinity are not
        raise RequestRefused(400, f"{name}: a number from 0 to {most:g}")
    return float(value)


# -- what answers it ------------------------------------------------------------------------------


def whole(asked: Request, text: str, answer: StreamedAnswer) -> Record:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": _reason(answer)}
    return _object(asked, "chat.completion", [choice]) | {"usage": usage(answer)}


def part(asked: Request, delta: Record, answer: StreamedAnswer | None = None) -> Record:
    """A piece of a stream; the last one says why the `answer` ended."""
    reason = None if answer is None else _reason(answer)
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _object(asked, "chat.completion.chunk", [choice])


def count(asked: Request, answer: StreamedAnswer) -> Record:
    return _object(asked, "chat.completion.chunk", []) | {"usage": usage(answer)}


def usage(answer: StreamedAnswer) -> Record:
    counts = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.answer_tokens}
    return counts | {"total_tokens": sum(counts.values())}


def event(record: Record) -> bytes:
    """A line of a stream of server-sent events."""
    return b"data: " + json.dumps(record).encode() + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"


def model(name: str, created: int) -> Record:
    return {"id": name, "object": "model", "created": created, "owned_by": "qlora-job"}


def error(refused: RequestRefused) -> Record:
    """In the form that every client of this API reads."""
    kinds = {429: "rate_limit_error", 401: "authentication_error", 500: "server_error"}
    kind = kinds.get(refused.status, "invalid_request_error")
    return {"error": {"message": str(refused), "type": kind, "param": None, "code": refused.code}}


def _object(asked: Request, kind: str, choices: list[Record]) -> Record:
    return {
        "id": asked.id,
        "object": kind,
        "created": asked.created,
        "model": asked.model,
        "choices": choices,
    }


def _reason(answer: StreamedAnswer) -> str:
    return "length" if answer.was_cut else "stop"
