"""The page of `ask --serve`, and its questions and answers: lines of JSON."""

import html
from collections.abc import Mapping
from pathlib import Path

from trainer.commands.admission import Limits
from trainer.commands.loopback import RequestRefused, object_in
from trainer.corpus.examples import Message

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
    return 6 * (limits.characters + limits.said) + 9000


def question_in(body: bytes, limits: Limits) -> tuple[str | tuple[Message, ...], bool]:
    """What the page asks, and whether the tuned model is meant. Raises RequestRefused."""
    try:
        record = object_in(body)
        question, tuned = record["question"].strip(), record.get("tuned", True)
        said = _turns(record.get("said", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RequestRefused(
            400, 'a question looks like {"question": "…", "tuned": true}'
        ) from None
    if not question or not isinstance(tuned, bool):
        raise RequestRefused(400, "there is no question")
    if len(question) > limits.characters:
        raise RequestRefused(413, too_long(limits))
    if sum(len(turn.content) for turn in said) > limits.said:
        raise RequestRefused(413, f"at most {limits.said} characters are remembered")
    return (*said, Message("user", question)) if said else question, tuned


def too_long(limits: Limits) -> str:
    return f"a question has at most {limits.characters} characters"


def _turns(said: list[list[str]]) -> tuple[Message, ...]:
    """Of questions with their answers. Raises ValueError or TypeError for anything else."""
    pairs = [(question, answer) for question, answer in said]
    if not all(isinstance(text, str) and text.strip() for pair in pairs for text in pair):
        raise ValueError("no text")
    return tuple(
        Message(role, text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )
