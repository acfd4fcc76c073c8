"""Thoughts that stand in an answer, as models write them: `<think>…</think>` and then the words."""

import re
from collections import Counter

from trainer.corpus.examples import Unusable

OPENING, CLOSING = "<think>", "</think>"
STARTED_BEFORE = "answers with </think> and no <think>, what stands before it is read as a thought"
OTHER_TAGS = "answers that begin with a thought in tags other than <think>, trained as words"
_OTHER_TAGS = re.compile(r"\s*<(thinking|thought|thoughts|reasoning|reflection)>", re.IGNORECASE)
_MENTION = re.compile(r"""[\s`"'(]</think>[ \t`"').,;:?!]""")


def refuse_open_thought(answer: str, what: str) -> None:
    """Raises Unusable for an answer that begins with a thought and never gets to itself."""
    if not answer.lstrip().startswith(OPENING):
        return
    _, closing, words = answer.partition(CLOSING)
    if not closing:
        raise Unusable(f"{what} holds a thought that never ends: <think> without </think>")
    if not words.strip():
        raise Unusable(f"{what} holds a thought and no answer behind it")
    if words.lstrip().startswith(OPENING):
        raise Unusable(f"{what} holds two thoughts before an answer; write them as one")


def divided(answer: str, what: str, counts: Counter[str]) -> tuple[str, str]:
    """(the thought, the answer) of one that was written by a template which opens the thought
    itself; ("", `answer`) of any other. Raises Unusable."""
    if _OTHER_TAGS.match(answer):
        counts[OTHER_TAGS] += 1
    if CLOSING not in answer or OPENING in answer or _MENTION.search(answer):
        return "", answer
    thought, _, words = answer.partition(CLOSING)
    if CLOSING in words:
        raise Unusable(f"{what} holds </think> twice and no <think>")
    if not words.strip():
        raise Unusable(f"{what} holds a thought and no answer behind it")
    counts[STARTED_BEFORE] += 1
    return thought.strip(), words.lstrip()
