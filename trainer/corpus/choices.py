"""Questions with choices: worded with them, and the answer is the choice that is right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Any

from trainer.corpus.examples import Unusable, checked_text, json_type

_KEY = re.compile(r"\(?([A-Za-z]|\d{1,3})[.):]?")
_LABELLED = re.compile(r"\(?([A-Za-z0-9])[.):]\s+(?=\S)")
_BETWEEN_NAMES = re.compile(r"\s*(?:[,;/&+\n]|\band\b)\s*")
_LETTERS = re.compile("[A-J]{2,}")
_LONGEST_NAMES = 400  # characters of an answer that names choices alone
_BETWEEN_CHOICES = ("\n", "|", ";")


@dataclass(frozen=True)
class Choices:
    """What may be answered: each label with its words."""

    by_label: dict[str, str]
    are_numbers: bool = False
    """whether the data has numbers and no text for them: then a number is one of them"""

    @cached_property
    def _labels(self) -> list[str]:
        return list(self.by_label)

    @cached_property
    def _by_words(self) -> dict[str, str]:
        """The first label of each words."""
        return {words.strip(): label for label, words in reversed(self.by_label.items())}

    def worded(self, question: str) -> str:
        """The question, and below it one line for each choice."""
        lines = "\n".join(map(self._line, self.by_label))
        return f"{question}\n\n{lines}"

    def _line(self, label: str) -> str:
        return f"{label}. {self.by_label[label]}"

    @staticmethod
    def is_name(answer: object) -> bool:
        """Whether this names choices by their letters or their numbers."""
        return _KEY.fullmatch(str(answer).strip()) is not None or bool(_names(answer))

    def right(self, answer: object) -> tuple[str, bool]:
        """(the lines of the choices that `answer` names by their labels, words or numbers from 0;
        whether by numbers), ("", False) where it is other words. It may be a list of names, or
        text as `A, C` or `AC`. Raises Unusable for a name that no choice has."""
        single = ("", False) if isinstance(answer, list) else self._right(answer)
        names = answer if isinstance(answer, list) else _names(answer)
        if single[0] or not names:
            return single
        found = [self._right(name) for name in names]
        lines = dict.fromkeys(line for line, _ in found if line)
        if lines and not all(line for line, _ in found):
            raise self._is_none(answer)
        return "\n".join(lines), any(is_number for _, is_number in found)

    def _right(self, answer: object) -> tuple[str, bool]:
        text = str(answer).strip()
        if text in self.by_label:
            return self._line(text), False
        if type(answer) is int and not self.are_numbers and 0 <= answer < len(self.by_label):
            return self._line(self._labels[answer]), True
        if text in self._by_words:
            return self._line(self._by_words[text]), False
        found = _KEY.fullmatch(text)
        if found is None:
            return "", False
        if (label := found[1].upper()) in self.by_label:
            return self._line(label), False
        if found[1].isdecimal() and int(found[1]) < len(self.by_label):
            return self._line(self._labels[int(found[1])]), True
        raise self._is_none(answer)

    def _is_none(self, answer: object) -> Unusable:
        return Unusable(
            f"its answer {str(answer)[:60]} is none of its {len(self.by_label)} choices; write the "
            "choice's letter, its words, or its number, counted from 0"
        )


def _names(answer: object) -> list[str]:
    """Those of a text that names several choices, which it does in their order where nothing is
    between them; else nothing."""
    text = str(answer).strip()
    if len(text) > _LONGEST_NAMES:
        return []
    if _LETTERS.fullmatch(text):
        return list(text) if list(text) == sorted(set(text)) else []
    names = _BETWEEN_NAMES.split(text)
    return names if len(names) > 1 and all(map(_KEY.fullmatch, names)) else []


def choices_of(value: object, what: str) -> Choices:
    """A list of words or of {"text": words, "label": label}, {label: words}, {"text": [words],
    "label": [labels]}, or text with a line, | or ; between them. Raises Unusable."""
    labels: Sequence[Any]
    if isinstance(value, str):
        value = _parts(value)
    if isinstance(value, list) and value and all(map(_has_label, value)):
        value = {str(choice["label"]): choice["text"] for choice in value}
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        words, labels = value["text"], value.get("label") or ascii_uppercase
        if not isinstance(labels, list | str):
            raise Unusable(f"{what} has labels that are {json_type(labels)}, not a list")
    elif isinstance(value, dict):
        words, labels = list(value.values()), list(value)
    elif isinstance(value, list):
        words, labels = value, ascii_uppercase
    else:
        raise Unusable(f"{what} is {json_type(value)}, not a list of choices")
    if not 1 < len(words) <= len(labels):
        raise Unusable(f"{what} holds {len(words)} choices; it needs 2 to {len(ascii_uppercase)}")
    texts = [checked_text(word, what) for word in words]
    marked = [_LABELLED.match(text) for text in texts]
    if all(m and m[1].upper() == str(labels[at]) for at, m in enumerate(marked)):
        texts = [text[m.end() :] for text, m in zip(texts, marked, strict=True) if m]
    return Choices(
        {str(label): text for label, text in zip(labels, texts, strict=False)},
        are_numbers=any(isinstance(word, int | float) for word in words),
    )


def _has_label(choice: object) -> bool:
    return isinstance(choice, dict) and {"text", "label"} <= choice.keys()


def _parts(text: str) -> list[str] | str:
    """The choices that stand in one text; `text` where nothing is between them."""
    for between in _BETWEEN_CHOICES:
        parts = [part.strip() for part in text.split(between)]
        if len(parts) > 1 and all(parts):
            return parts
    return text
