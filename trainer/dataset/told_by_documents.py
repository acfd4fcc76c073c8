"""Held-out questions whose answers stand in documents that are trained: they are not new to it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.corpus.examples import printable
from trainer.dataset.eval_questions import Question
from trainer.dataset.selection import TEXT, Selection
from trainer.runtime import signals
from trainer.runtime.wording import counted
from trainer.tokenization.encode import ids_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TOKENS = 1 << 20  # looked through, some seconds; what comes after them is not
LONG_ANSWER = 6  # words that do not stand in a row by chance
SHARED = 0.6  # of a question's words, beside a shorter answer
_NAMED = 3
_WORDS = re.compile(r"\w+")
_SAYING = 4  # letters: shorter words stand everywhere


def told_by_documents(
    train: Selection, asked: Sequence[Question], tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, Any]:
    """How many of the questions that are `asked` and held out are answered by documents among
    `train`, in the words of their references, and some of these documents; JSON-ready."""
    wanted = [_Wanted(question) for question in asked]
    documents: dict[str, int] = {}
    told = 0
    for name, text in _texts(train, tokenizer) if wanted else ():
        found = [one for one in wanted if one.is_told_by(text)]
        if found:
            told += len(found)
            documents[name] = documents.get(name, 0) + len(found)
            wanted = [one for one in wanted if one not in found]
    most = sorted(documents, key=lambda name: -documents[name])
    return {
        "told_by_documents": told,
        "told_of": len(asked),
        "told_first": most[:_NAMED],
        "told_documents": len(most),
    }


def told_sentence(counts: Mapping[str, Any]) -> str:
    """For a person: how many, and which documents."""
    names = ", ".join(map(printable, counts["told_first"]))
    more = ", …" if counts["told_documents"] > len(counts["told_first"]) else ""
    return (
        f"{counts['told_by_documents']:,} of {counted(counts['told_of'], 'held-out question')} "
        f"{'is' if counts['told_by_documents'] == 1 else 'are'} answered, word for word, by "
        f"documents that are trained ({names}{more}): answers to them show what was read there, "
        "and not what the model makes of anything new"
    )


class _Wanted:
    """One answer that is looked for, with what its question is about."""

    def __init__(self, question: Question) -> None:
        words = _WORDS.findall(question.answer.casefold())
        self._answer = f" {' '.join(words)} "
        self._is_long = len(words) >= LONG_ANSWER
        self._about = {
            word for word in _WORDS.findall(question.question.casefold()) if len(word) >= _SAYING
        }

    def is_told_by(self, text: str) -> bool:
        """`text` is words with a space around each."""
        if not self._answer.strip() or self._answer not in text:
            return False
        if self._is_long:
            return True
        shared = sum(f" {word} " in text for word in self._about)
        return bool(self._about) and shared >= SHARED * len(self._about)


def _texts(train: Selection, tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[str, str]]:
    """(file, words) of each sequence of a document that is trained."""
    cache = train.corpus.cache
    documents = train.chosen & (cache.rows["kind"] == TEXT)
    starts, lengths = cache.sequences(documents)
    rows = cache.rows[documents]
    sources = np.repeat(rows["source"], rows["sequences"])
    few = int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), MOST_TOKENS))
    for start, length, source in zip(starts[:few], lengths[:few], sources[:few], strict=True):
        signals.raise_if_requested()
        ids = ids_of(np.array(cache.tokens[start : start + length]))
        text = str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))
        yield train.corpus.files[source].name, f" {' '.join(_WORDS.findall(text.casefold()))} "
