"""Text that carries a chat template's frame already: read back into turns where that is the base's.

Published data often has whole conversations in one `text` column, `<s>[INST] … [/INST] … </s>`, or
a prompt that ends with the frame of an answer. As plain text the tokens of the frame would be
spelt out, which a model has never seen, and which no question is asked with.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

from trainer.corpus.examples import Completion, Conversation, Example, Message, Text, Unusable
from trainer.tokenization.chat_template import ChatTemplate
from trainer.tokenization.special_tokens import SpecialTokens
from trainer.tokenization.turns import as_turns

_BEGINNING = 4096  # characters in which a frame begins, where a text has one
_HINTS = ("<|", "[INST]", "<start_of_turn>", "<\uff5c", "<|turn>", "<s>")
_FRAME = re.compile(
    r"<\|im_start\|>|\[INST\]|<start_of_turn>|<\|start_header_id\|>|<\uff5c(?:User|Assistant)\uff5c>"
    r"|<\|(?:user|assistant|system|turn|start)\|?>|<\|START_OF_TURN_TOKEN\|>"
)
# Frames of words, which prose may hold too: a pair of them, or a sentence that nobody else writes.
_TASK = "Below is an instruction that describes a task"
_WORDED = {"### Instruction:": "### Response:", "### Human:": "### Assistant:"}
# What a turn that was cut out of framed text begins or ends with.
_TURN_BEGINS = re.compile(
    rf"\s*+(?:<s>|<bos>|<\|begin_of_text\|>)?\s*+(?:{_FRAME.pattern}|{_TASK}|{'|'.join(_WORDED)})"
)
_TURN_ENDS = ("</s>", "[/INST]", "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<turn|>")
_CONTENT = r"(.+?)(?<!\s)"  # up to its last word
_LONGEST_END = 32  # characters, with white space behind it
_WORDS = tuple(f"q{n}q" for n in ("system", "user", "answer", "more", "again"))


def frame_in(example: Example) -> str:
    """The token or words of some chat template that stand in a text or a prompt, or around the
    words of a turn; empty for none."""
    if isinstance(example, Conversation):
        return next((frame for m in example.messages if (frame := _around(m.content))), "")
    beginning = _text_of(example)[:_BEGINNING]
    if any(hint in beginning for hint in _HINTS) and (found := _FRAME.search(beginning)):
        return found.group()
    return _words_in(beginning, example)


def _around(content: str) -> str:
    if found := _TURN_BEGINS.match(content):
        return found.group().strip()
    end = content[-_LONGEST_END:].rstrip()
    return next((mark for mark in _TURN_ENDS if end.endswith(mark)), "")


def _words_in(beginning: str, example: Text | Completion) -> str:
    if _TASK in beginning:
        return _TASK
    asked = (word for word in _WORDED if word in beginning)
    return next((word for word in asked if _WORDED[word] in _text_of(example)), "")


@dataclass(frozen=True)
class _Frame:
    """Patterns of what a template writes around contents; white space may be more or less."""

    begins: re.Pattern[str]
    system: re.Pattern[str] | None
    round: re.Pattern[str]
    marks: tuple[str, ...]
    """what stands before a question and before an answer: contents hold none of it"""


class FramedText:
    """Reads the frame of one template."""

    def __init__(self, template: ChatTemplate, special: SpecialTokens) -> None:
        self._template, self._special = template, special

    def as_conversation(self, example: Text | Completion) -> Conversation | None:
        """The turns of a text, or of a prompt with its completion, that is framed from its first
        word to its last; None where it is not, or not by this template."""
        messages = self._turns(_text_of(example).strip())
        if not messages or any(self._is_framed(m.content) for m in messages):
            return None
        if isinstance(example, Completion):
            if not example.completion.strip().startswith(messages[-1].content):
                return None
            given = [replace(m, trained=m.role != "assistant") for m in messages[:-1]]
            messages = [*given, messages[-1]]
        return Conversation(tuple(messages))

    def _is_framed(self, content: str) -> bool:
        marks = self._frame.marks if self._frame else ()
        return bool(self._special.first_in(content)) or any(mark in content for mark in marks)

    def _turns(self, text: str) -> list[Message]:
        """Empty where something of `text` stands outside of the frame."""
        if (frame := self._frame) is None:
            return []
        messages: list[Message] = []
        at = self._behind(frame.begins, text, 0)
        if frame.system and (found := frame.system.match(text, at)):
            messages.append(Message("system", found[1].strip()))
            at = found.end()
        while at < len(text):
            found = frame.round.match(text, at)
            if not found or not found[1].strip() or not found[2].strip():
                return []
            messages.append(Message("user", found[1].strip()))
            messages.append(Message("assistant", found[2].strip()))
            at = self._behind(frame.begins, text, found.end())
        return messages

    def _behind(self, pattern: re.Pattern[str], text: str, at: int) -> int:
        found = pattern.match(text, at)
        return found.end() if found else at

    @cached_property
    def _frame(self) -> _Frame | None:
        system, user, answer, more, again = _WORDS
        turns = (("user", user), ("assistant", answer), ("user", more), ("assistant", again))
        rounds = self._written(turns).partition(user)[2]
        asks = rounds.rfind(more)
        answers = rounds.rfind(answer, 0, max(asks, 0))
        if answers < 0 or not self._template.ends:
            return None
        opening, between = rounds[:answers], rounds[answers + len(answer) : asks]
        end = self._template.ends[0]
        bos = "" if self._opens_turns(opening) else str(self._special.bos_token)
        question = _without(bos, between.partition(end)[2])
        if not (self._special.first_in(question) or _FRAME.search(question)):
            return None  # words alone are no frame that could be told from text
        pattern = (
            f"{_flexible(question)}{_CONTENT}{_flexible(opening)}{_CONTENT}(?:{_flexible(end)}|\\Z)"
        )
        with_system = _without(bos, self._written((("system", system), *turns[:2])))
        return _Frame(
            re.compile(f"(?:{_flexible(bos)})?\\s*+"),
            self._system_pattern(with_system, question),
            re.compile(pattern, re.DOTALL),
            tuple(filter(None, (question.strip(), opening.strip()))),
        )

    def _opens_turns(self, before_answer: str) -> bool:
        """Whether bos stands before every turn, an answer too, as ChatML's `<|im_start|>` may: then
        it is part of the frame, and else it stands before rounds."""
        return bool(self._special.bos_token) and self._special.bos_token in before_answer

    def _system_pattern(self, text: str, question: str) -> re.Pattern[str] | None:
        """Where a system turn has a frame of its own, and the question is framed as ever."""
        before, word, behind = text.partition(_WORDS[0])
        end = behind.partition(_WORDS[1])[0].rstrip().removesuffix(question.strip())
        if not word or not before.strip() or not end.strip():
            return None
        return re.compile(f"{_flexible(before)}{_CONTENT}{_flexible(end)}", re.DOTALL)

    def _written(self, turns: tuple[tuple[str, str], ...]) -> str:
        messages = tuple(Message(*turn) for turn in turns)
        try:
            given = as_turns(messages, self._template.style, lambda _at, text: text)
            return self._template.written(given)
        except Unusable:
            return ""


def _text_of(example: Text | Completion) -> str:
    return example.text if isinstance(example, Text) else example.prompt + example.completion


def _without(token: str, text: str) -> str:
    return text.replace(token, "") if token else text


def _flexible(frame: str) -> str:
    """A pattern of `frame` in which white space may be more or less; all that there is is taken, so
    that a long stretch of it is not tried at each of its lengths."""
    return "".join((r"\s*+", r"\s*+".join(map(re.escape, frame.split())), r"\s*+"))
