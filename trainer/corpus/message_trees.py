"""The tree of messages that ChatGPT and DeepSeek keep of a conversation -> the turns shown last.

What was said aloud is text. Pictures and files are not: the words beside them are given, and the
answer to them is not trained, which nobody could give without seeing them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.corpus.conversations import MOST_TURNS
from trainer.corpus.examples import NotTrained, Unusable

OTHER_MESSAGES = "not used: messages of ChatGPT's export that are no text of the user or ChatGPT"
UNSEEN = "answers to pictures and files, which are given and not trained"
_MOST_MESSAGES = 100_000  # of one conversation, forks included
_SOURCE = re.compile(
    "\ue200[^\ue200\ue201]*\ue201|【\\d+†[^【】]*】"
)  # where it says what it found
_OF_DEEPSEEK = {"REQUEST": "user", "RESPONSE": "assistant"}


@dataclass
class _Said:
    role: str
    words: list[str]
    """of each message that has some"""
    thought: str = ""
    has_unseen: bool = False


def shown_turns(
    mapping: Mapping[str, Any], current: object, counts: Counter[str]
) -> list[dict[str, Any]]:
    """What is not used is added to `counts`. Raises Unusable; NotTrained where every answer is one
    to what nobody sees here."""
    turns: list[_Said] = []
    for message in reversed(list(_branch(mapping, current))):
        for said in _said(message, counts):
            if turns and turns[-1].role == said.role:  # what a tool did stood between them
                turns[-1].words += said.words
                turns[-1].thought = turns[-1].thought or said.thought
                turns[-1].has_unseen |= said.has_unseen
            else:
                turns.append(said)
        if len(turns) > MOST_TURNS:
            raise Unusable(f'"mapping" holds more than {MOST_TURNS:,} turns')
    return _as_turns(turns, counts)


def _as_turns(turns: list[_Said], counts: Counter[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    trained = unseen = 0
    for at, said in enumerate(turns):
        if not said.words:
            continue
        turn: dict[str, Any] = {
            "role": said.role,
            "content": "\n\n".join(said.words),
            "thinking": said.thought,
        }
        if said.role == "assistant" and at and turns[at - 1].has_unseen:
            turn["weight"] = 0
            unseen += 1
        found.append(turn)
        trained += said.role == "assistant" and "weight" not in turn
    if unseen and not trained:
        raise NotTrained("conversations about nothing but pictures and files")
    if unseen:
        counts[UNSEEN] += unseen
    return found


def _branch(mapping: Mapping[str, Any], current: object) -> Iterator[Mapping[str, Any]]:
    """The messages from the last to the first, each once."""
    if not isinstance(current, str) or current not in mapping:
        nodes = (node for node in mapping.values() if isinstance(node, dict))
        parents = {above for node in nodes if isinstance(above := node.get("parent"), str)}
        leaves = [name for name in mapping if name not in parents]
        if len(leaves) != 1:
            raise Unusable('"mapping" has several ends and no "current_node" says which is shown')
        current = leaves[0]
    seen: set[str] = set()
    while isinstance(current, str) and current not in seen and len(seen) < _MOST_MESSAGES:
        seen.add(current)
        node = mapping.get(current)
        if not isinstance(node, dict):
            return
        if isinstance(node.get("message"), dict):
            yield node["message"]
        current = node.get("parent")


def _said(message: Mapping[str, Any], counts: Counter[str]) -> Iterator[_Said]:
    """What a message says; of one that is no text of either side nothing."""
    if isinstance(message.get("fragments"), list):
        yield from _fragments(message["fragments"], counts)
        return
    author, content = message.get("author"), message.get("content")
    role = str(author.get("role")) if isinstance(author, dict) else ""
    if role == "system":
        return
    kind = content.get("content_type", "text") if isinstance(content, dict) else ""
    is_to_a_tool = message.get("recipient", "all") != "all"
    if role not in ("user", "assistant") or is_to_a_tool or kind not in ("text", "multimodal_text"):
        counts[OTHER_MESSAGES] += 1
        return
    assert isinstance(content, dict)
    parts = content.get("parts", [])
    parts = parts if isinstance(parts, list) else [parts]
    texts = [text for part in parts if (text := _text_of(part))]
    words = _SOURCE.sub("", "\n".join(texts)).strip("\n") if any(map(str.strip, texts)) else ""
    has_unseen = any(map(_is_unseen, parts))
    if words or has_unseen:
        yield _Said(role, [words] if words else [], has_unseen=has_unseen and role == "user")


def _text_of(part: object) -> str:
    """Also of what was said aloud."""
    if isinstance(part, dict) and part.get("content_type") == "audio_transcription":
        part = part.get("text")
    return part if isinstance(part, str) else ""


def _is_unseen(part: object) -> bool:
    """Whether it is a picture or a file, and not text or the sound of it."""
    kind = str(part.get("content_type")) if isinstance(part, dict) else ""
    return bool(kind) and "audio" not in kind


def _fragments(fragments: list[Any], counts: Counter[str]) -> Iterator[_Said]:
    """The parts of one message of DeepSeek."""
    thought = ""
    for part in fragments:
        kind = str(part.get("type")) if isinstance(part, dict) else ""
        words = part.get("content") if isinstance(part, dict) else None
        if not isinstance(words, str) or kind not in ("THINK", *_OF_DEEPSEEK):
            counts["not used: parts of DeepSeek's export that are no text"] += 1
        elif kind == "THINK":
            thought = words
        else:
            yield _Said(_OF_DEEPSEEK[kind], [words] if words else [], thought)
            thought = ""
