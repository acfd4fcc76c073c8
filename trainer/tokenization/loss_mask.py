"""Which words of a record are trained: a completion, the assistant's answers and their ends."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from trainer.corpus.examples import Completion, Conversation, Message
from trainer.tokenization.chat_template import ChatTemplate, Rendering, shared_start
from trainer.tokenization.special_tokens import Span, SpecialTokens
from trainer.tokenization.turns import thought_of

_THOUGHT_TAG = re.compile(
    r"<\|channel>thought.*?<channel\|>|<[^<>]*(?:think|thought|reason)[^<>]*>",
    re.DOTALL | re.IGNORECASE,
)
_BEGUN_TAG = re.compile(r"[<\[][^<>\[\]\s]*\Z")
_MOST_UNROLLED = 64
# Of conversations of the same roles: each is kept, but not without bounds.
_MOST_FRAMES, _MOST_KEPT_TURNS = 1024, 16
_PLACE = re.compile("\ue010([0-9]{1,9})\ue011")


class LossMask:
    """What of a record is given and what is trained, for one template."""

    def __init__(self, template: ChatTemplate, special: SpecialTokens, eos_token: str) -> None:
        self._template, self._special, self._eos_token = template, special, eos_token
        self._frames: dict[tuple[tuple[str, bool], ...], list[_Piece]] = {}

    def spans(self, example: Completion | Conversation) -> list[list[Span]]:
        """What is given and what is trained, in order, of each sequence of a record; each ends with
        its last trained token.

        A conversation is one sequence. Where its template leaves out the thoughts of earlier
        answers, each of those is trained in a sequence that ends with it, as it would be asked for.
        Raises Unusable if the chat template refuses the conversation or leaves out a turn.
        """
        if isinstance(example, Completion):
            return [
                [
                    Span(example.prompt, trained=False, is_data=True),
                    Span(example.completion, trained=True, is_data=True),
                    Span(self._eos_token, trained=True),
                ]
            ]
        return self._known(example) or [s for s in self._conversation(example) if s]

    def prompt(self, conversation: Conversation) -> list[Span]:
        """What is given before the last answer of `conversation`."""
        rendering = self._template.render(conversation)
        last = len(rendering.messages) - 1
        (answer,) = self._answers(rendering, {last})
        return [span for span in _divided(rendering, [_Answer(answer.start, answer.start)])]

    def _known(self, conversation: Conversation) -> list[list[Span]]:
        """As `_conversation`, where the template writes the same around other contents; empty where
        it may not."""
        messages = conversation.messages
        if len(messages) > _MOST_KEPT_TURNS or not self._template.is_plain(conversation):
            return []
        roles = tuple((message.role, message.trained) for message in messages)
        pieces = self._frames.get(roles)  # which another thread may clear
        if pieces is None:
            turns = [replace(m, content=_place(at)) for at, m in enumerate(messages)]
            worded = list(self._conversation(replace(conversation, messages=tuple(turns))))
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            pieces = [_Piece.of(span) for spans in worded for span in spans]
            # Else the template writes places itself.
            is_ours = all(n < len(messages) for piece in pieces for n in piece.numbers)
            self._frames[roles] = pieces = pieces if is_ours else []
        return [[piece.filled(messages) for piece in pieces]] if pieces else []

    def _conversation(self, conversation: Conversation) -> Iterator[list[Span]]:
        rendering = self._template.render(conversation)
        wanted = {
            at
            for at, message in enumerate(rendering.messages)
            if message.role == "assistant" and message.trained
        }
        for at in sorted(wanted & rendering.dropped)[:_MOST_UNROLLED]:
            earlier = replace(conversation, messages=rendering.messages[: at + 1])
            yield self._spans(self._template.render(earlier), {at})
        yield self._spans(rendering, wanted - rendering.dropped)

    def _spans(self, rendering: Rendering, wanted: set[int]) -> list[Span]:
        answers = list(self._answers(rendering, wanted))
        spans = _divided(rendering, answers)
        if answers and not answers[-1].is_ended and answers[-1].end == _last_end(rendering):
            spans.append(Span(self._eos_token, trained=True))
        return spans

    def _answers(self, rendering: Rendering, wanted: set[int]) -> "Iterator[_Answer]":
        regions, text = rendering.regions, rendering.text
        for number, first, last in _extents(rendering):
            if number not in wanted:
                continue
            message, tail = rendering.messages[number], None
            if message.tool_calls:
                written, tail = self._alone(message)
                last = min(first + written, len(regions)) - 1
            before = regions[first - 1].end if first else 0
            after = regions[last + 1].start if last + 1 < len(regions) else len(text)
            start = self._start(rendering, number, before, regions[first].start)
            end = regions[last].end
            found = self._end(text[end:after], tail)
            yield _Answer(start, end + found, is_ended=found > 0)

    def _alone(self, call: Message) -> tuple[int, str]:
        """(how often its parts are written in its own turn, the text behind the last)."""
        rendering = self._template.render(Conversation((Message("user", "a"), call)))
        ((_, first, _),) = _extents(rendering)
        return len(rendering.regions) - first, rendering.text[_last_end(rendering) :]

    def _start(self, rendering: Rendering, message: int, before: int, content: int) -> int:
        """Where what the model has to write begins, in the text between two contents."""
        header = rendering.text[before:content]
        thought = message not in rendering.dropped and thought_of(rendering.messages[message])
        whole, own = self._template.opening(bool(thought))
        at = header.find(whole) + len(whole) if whole in header else _behind(header, own)
        for token in self._special.all_in(header):
            if token.start() < at < token.end():
                at = token.start()
        tags = [] if thought else list(_THOUGHT_TAG.finditer(header, at))
        if tags:  # an empty thought belongs to the template
            at = len(header) - len(
                _kept(rendering.messages[message].content, header[tags[-1].end() :])
            )
        return before + at

    def _end(self, behind: str, alone: str | None) -> int:
        """How much of the template's text `behind` the last word of an answer belongs to it;
        `alone` is what follows a call that nothing follows."""
        found = [(behind.find(end), end) for end in self._template.ends if end in behind]
        if found:
            at, end = min(found)
            return at + len(end)
        if alone is not None:
            return len(shared_start(behind, alone))
        first = self._special.first_in(behind)
        return first.end() if first and first.group() != self._special.bos_token else 0


@dataclass(frozen=True)
class _Answer:
    """Characters [start, end) of a rendering, trained."""

    start: int
    end: int
    is_ended: bool = True


def _extents(rendering: Rendering) -> Iterator[tuple[int, int, int]]:
    """(number of the message, its first region, its last) of each answer.

    The name of a tool may be written above all turns, and again where its result is.
    """
    by_message: dict[int, list[int]] = {}
    for at, region in enumerate(rendering.regions):
        by_message.setdefault(region.message, []).append(at)
    for message, found in sorted(by_message.items()):
        if rendering.messages[message].role == "assistant":
            above = by_message.get(message - 1, [-1])[-1]
            parts = {rendering.regions[at].part: at for at in reversed(found) if at > above}
            if parts:
                yield message, min(parts.values()), max(parts.values())


def _last_end(rendering: Rendering) -> int:
    return max((region.end for region in rendering.regions), default=0)


def _behind(header: str, opening: str) -> int:
    """The end of as much of `opening` as `header` has; its own where that is next to nothing. A tag
    is in it whole or not at all: <think> and <tool_call> begin alike."""
    for length in range(len(opening), len(opening) // 3, -1):
        if (at := header.rfind(opening[:length])) >= 0:
            end = at + length
            begun = _BEGUN_TAG.search(header, at, end) if length < len(opening) else None
            return begun.start() if begun else end
    return len(header)


def _kept(content: str, behind: str) -> str:
    """The white space at the start of `content` that the template has kept: the end of `behind`."""
    spaces = content[: len(content) - len(content.lstrip())]
    while not behind.endswith(spaces):
        spaces = spaces[1:]
    return spaces


def _divided(rendering: Rendering, answers: Sequence[_Answer]) -> list[Span]:
    """The text up to the end of the last answer, cut where training or contents begin and end."""
    if not answers:
        return []
    stop = answers[-1].end
    data = [(region.start, region.end) for region in rendering.regions]
    trained = [(answer.start, answer.end) for answer in answers]
    cuts = {0, stop, *(c for pair in (*data, *trained) for c in pair if c < stop)}
    spans = []
    of_data, of_trained = _Within(data), _Within(trained)
    for start, end in pairwise(sorted(cuts)):
        spans.append(Span(rendering.text[start:end], of_trained(start), of_data(start)))
    return spans


class _Within:
    """Whether characters, asked for in order, lie in one of some ranges."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges, self._at = ranges, 0

    def __call__(self, character: int) -> bool:
        while self._at < len(self._ranges) and self._ranges[self._at][1] <= character:
            self._at += 1
        return self._at < len(self._ranges) and self._ranges[self._at][0] <= character


def _place(message: int) -> str:
    return f"\ue010{message}\ue011"


@dataclass(frozen=True)
class _Piece:
    """A span whose text is given by the contents of messages: `texts` around those `numbers`."""

    span: Span
    texts: tuple[str, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, span: Span) -> "_Piece":
        parts = _PLACE.split(span.text)
        return cls(span, tuple(parts[::2]), tuple(map(int, parts[1::2])))

    def filled(self, messages: Sequence[Message]) -> Span:
        if not self.numbers:
            return self.span
        text = self.texts[0]
        for number, behind in zip(self.numbers, self.texts[1:], strict=True):
            text += messages[number].content + behind
        return Span(text, self.span.trained, self.span.is_data)
