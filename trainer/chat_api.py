"""Any server that speaks OpenAI's chat completions: many requests at once, tried again where that
helps, half an answer told from a whole one.

It gets the model's name and the messages, temperature 0 and the most tokens that it may write, the
last two as long as it accepts them: every server takes the rest. The key is `OPENAI_API_KEY`, as
all such tools have it; a server of one's own needs none.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from trainer.corpus.examples import Message
from trainer.errors import DataError, NotAllowedError, SettingsError, UnreachableError
from trainer.runtime.json_records import json_object, well_formed
from trainer.runtime.log import one_line
from trainer.storage.endpoints import refuse_link_local
from trainer.storage.parallel import in_order
from trainer.storage.retry import Failure, retry

KEY = "OPENAI_API_KEY"
PATH = "/chat/completions"
TIMEOUT_S = 120.0  # of one request: a model that thinks takes a minute
LARGEST_ANSWER_BYTES = 16 << 20
MOST_COUNTED = 10**9  # tokens of one request
MANY_REQUESTS, TIMED_OUT = 429, 408
NOT_ALLOWED, NOT_FOUND = (401, 403), 404
REFUSED = (400, 422)


@dataclass(frozen=True)
class Completion:
    """What the model wrote; `whole` unless the server cut it off. Tokens are as the server counts
    them, 0 where it does not say."""

    text: str
    whole: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _BadAnswer(Exception):
    """A status that is none of success, or a body that is none of this API."""

    def __init__(self, status: int, said: str, wait_s: float = 0) -> None:
        super().__init__(said)
        self.status, self.said, self.wait_s = status, said, wait_s


@dataclass(frozen=True, eq=False)
class ChatApi:
    """`model` of the server at `url`, which `variable` set: `http://host/v1` or the like."""

    variable: str
    url: str
    model: str
    minutes: float
    """how long a request that fails for a while is tried again"""
    key: str = field(default="", repr=False)

    @classmethod
    def read(
        cls,
        variable: str,
        url: str,
        model: str,
        minutes: float,
        environ: Mapping[str, str] = os.environ,
    ) -> "ChatApi":
        """Raises SettingsError for an address that nothing may be sent to."""
        refuse_link_local(variable, url)
        return cls(variable, url, model, minutes, environ.get(KEY, "").strip())

    @property
    def name(self) -> str:
        """For people: the model and where it is."""
        return f"{self.model} at {urlsplit(self.url).netloc.rpartition('@')[2]}"

    def replies(
        self, conversations: Sequence[Sequence[Message]]
    ) -> Iterator[Completion | DataError]:
        """The answer to each, in order, several asked at once; DataError for one that the server
        refuses.

        Raises NotAllowedError, SettingsError or UnreachableError where asking on is in vain.
        """
        return in_order(self.reply, conversations, ahead=len(conversations))

    def reply(
        self, messages: Sequence[Message], most_tokens: int | None = None
    ) -> Completion | DataError:
        """The answer to one conversation, as `replies` gives it, not whole where it needs more
        than `most_tokens`. Threads may call it at once."""
        try:
            return retry(
                lambda: self._ask(messages, most_tokens), self._failure, self.name, self.minutes
            )
        except DataError as error:
            return error

    def _ask(self, messages: Sequence[Message], most_tokens: int | None) -> Completion:
        """Raises _BadAnswer, and what the client raises."""
        body: dict[str, Any] = {"model": self.model}
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in messages]
        told: dict[str, Any] = {"temperature": 0}
        if most_tokens is not None:
            told["max_tokens"] = most_tokens
        while True:
            accepted = {name: told[name] for name in told if name not in self._refused}
            if "max_tokens" in self._refused and most_tokens is not None:
                accepted["max_completion_tokens"] = most_tokens  # its newer name
            try:
                return self._post(body | accepted)
            except _BadAnswer as error:
                sent = told.keys() & accepted.keys()
                named = {name for name in sent if re.search(rf"\b{name}\b", error.said)}
                if error.status not in REFUSED or not named:
                    raise
                self._refused.update(named)

    @cached_property
    def _refused(self) -> set[str]:
        """What the server has refused to be told."""
        return set()

    def _post(self, body: Mapping[str, Any]) -> Completion:
        import httpx2

        address = self.url.rstrip("/").removesuffix(PATH) + PATH
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # Packed, few bytes can become any number; a redirect, which is not followed, would take the
        # key to another host.
        headers["Accept-Encoding"] = "identity"
        options: Any = {"json": body, "headers": headers, "timeout": TIMEOUT_S}
        with httpx2.stream("POST", address, follow_redirects=False, **options) as answer:
            data = _read(answer.iter_raw())
        if answer.status_code != 200:
            wait_s = _seconds(answer.headers.get("Retry-After", ""))
            said = one_line(data.decode(errors="replace"), most=200)
            raise _BadAnswer(answer.status_code, said, wait_s)
        usage: Any = None
        try:
            with well_formed("a chat completion"):
                record = json_object(data)
                usage, choice = record.get("usage"), record["choices"][0]
                text, reason = choice["message"]["content"], choice.get("finish_reason")
        except ValueError:
            text, reason = None, None
        if text is None and reason == "length":  # of a thought, which is sent elsewhere
            text = ""
        if not isinstance(text, str):
            raise _BadAnswer(200, "what it sends is no chat completion")
        return Completion(
            text.encode(errors="replace").decode().strip(),  # JSON can hold half a character
            whole=reason in ("stop", None),
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
        )

    def _failure(self, error: Exception) -> Failure | None:
        """What an exception means; None for one that is not the server's."""
        import httpx2

        if isinstance(error, httpx2.ReadTimeout):
            fact = f"it took more than {TIMEOUT_S:.3g} s to answer"
            step = "limit how long its answers may be, or give it a faster device"
            return Failure(UnreachableError, fact, step, passing=True)
        if isinstance(error, httpx2.TransportError):
            fact = f"it did not answer ({type(error).__name__})"
            step = f"see whether {self.variable} is right and the server runs"
            return Failure(UnreachableError, fact, step, passing=True)
        if isinstance(error, httpx2.InvalidURL | httpx2.HTTPError):
            return Failure(SettingsError, f"cannot be asked ({type(error).__name__})", self._step)
        return self._failure_of(error) if isinstance(error, _BadAnswer) else None

    def _failure_of(self, error: _BadAnswer) -> Failure:
        status, fact = error.status, f"answers {error.status}: {error.said}"
        if status in NOT_ALLOWED:
            return Failure(NotAllowedError, fact, f"set {KEY} to a key that may use it")
        if status in (200, MANY_REQUESTS, TIMED_OUT) or status >= 500:
            step = "start again later" if status == MANY_REQUESTS else self._step
            return Failure(UnreachableError, fact, step, passing=True, wait_s=error.wait_s)
        if status in REFUSED:
            return Failure(DataError, fact, self._step)
        return Failure(SettingsError, fact, self._step)

    @property
    def _step(self) -> str:
        return f"see whether {self.variable} and the model's name are right"


def _read(chunks: Iterator[bytes]) -> bytes:
    """A whole answer. Raises _BadAnswer for one that is too large or takes too long in all."""
    data, began = bytearray(), time.monotonic()
    for chunk in chunks:
        data += chunk
        if len(data) > LARGEST_ANSWER_BYTES:
            raise _BadAnswer(200, f"it sends more than {LARGEST_ANSWER_BYTES >> 20} MiB")
        if time.monotonic() - began > TIMEOUT_S:
            raise _BadAnswer(200, f"what it sends took more than {TIMEOUT_S:.3g} s")
    return bytes(data)


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value <= MOST_COUNTED else 0


def _seconds(retry_after: str) -> float:
    """What a server asks to be left alone for; 0 for a date, which few send."""
    return float(retry_after) if retry_after.isdecimal() else 0.0
