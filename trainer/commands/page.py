"""The page of `ask --serve`, and its questions and answers: lines of JSON."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.commands.admission import Limits
from trainer.commands.loopback import RequestRefused, object_in
from trainer.corpus.examples import Message, Unusable, checked_text

PAGE = Path(__file__).with_name("page.html")
POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def filled_page(names: Mapping[str, str]) -> str:
    """The page with what stands in for each name."""
    page = PAGE.read_text(encoding="utf-8")
    for name, value in names.items():
        page = page.replace("{{" + name + "}}", html.escape(value))
    return page


def most_bytes(limits: Limits) -> int:
    """Of a request; JSON writes one character in six bytes."""
    return 6 * (limits.characters + limits.said + limits.kept) + 9000


def question_in(body: bytes, limits: Limits) -> tuple[str | tuple[Message, ...], bool]:
    """What the page asks, and whether the tuned model is meant. Raises RequestRefused."""
    form = 'a question looks like {"question": "…", "tuned": true}'
    record, question, said = _asked(body, limits, form)
    tuned = record.get("tuned", True)
    if not isinstance(tuned, bool):
        raise RequestRefused(400, form)
    turns = tuple(
        Message(role, text)
        for pair in said
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )
    return (*turns, Message("user", question)) if said else question, tuned


def kept_in(body: bytes, limits: Limits) -> tuple[list[tuple[str, str]], str, str]:
    """An answer that is to be kept: what was said before, its question, itself. Raises
    RequestRefused."""
    form = 'an answer to keep looks like {"question": "…", "answer": "…"}'
    record, question, said = _asked(body, limits, form)
    try:
        answer = _words(record["answer"])
    except (KeyError, TypeError):
        raise RequestRefused(400, form) from None
    if len(answer) > limits.kept:
        raise RequestRefused(413, f"at most {limits.kept} characters of an answer are kept")
    return said, question, answer


def _asked(
    body: bytes, limits: Limits, form: str
) -> tuple[dict[str, Any], str, list[tuple[str, str]]]:
    """The whole request, its question, and the questions with their answers before it."""
    try:
        record = object_in(body)
        question = _words(record["question"])
        said = [_pair(pair) for pair in record.get("said", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RequestRefused(400, form) from None
    if len(question) > limits.characters:
        raise RequestRefused(413, too_long(limits))
    if sum(len(text) for pair in said for text in pair) > limits.said:
        raise RequestRefused(413, f"at most {limits.said} characters are remembered")
    return record, question, said


def _pair(given: object) -> tuple[str, str]:
    """A question with its answer. Raises RequestRefused for whatever else falls into two parts."""
    if not isinstance(given, list) or len(given) != 2:
        raise RequestRefused(400, 'said: questions with their answers, [["…", "…"]]')
    asked, answer = given
    return _words(asked), _words(answer)


def too_long(limits: Limits) -> str:
    return f"a question has at most {limits.characters} characters"


def _words(value: object) -> str:
    """What a question or an answer says. Raises TypeError for what is no text, RequestRefused for
    text that no model can be given."""
    if not isinstance(value, str):
        raise TypeError
    try:
        return checked_text(value, "what is sent").strip()
    except Unusable as unusable:
        raise RequestRefused(400, str(unusable)) from None
