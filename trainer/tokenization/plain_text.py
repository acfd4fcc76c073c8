"""Ordinary text to tokens: nothing in it becomes a special token, and no stray space joins it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import SettingsError
from trainer.runtime import native
from trainer.tokenization.word_table import TokenizedText, WordTable

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

MOST_S = 30.0
LEAST_CHARS_PER_S = 20_000  # a busy core tokenises a million


class PlainTextTokenizer:
    """Several threads may use it together.

    A SentencePiece-style tokenizer puts a space before the text of every call, which inside a
    record would be a stray token. Text that is not at the start is therefore tokenised behind a
    newline whose tokens are taken off again (transformers does the same in `encode_marked_chat`).
    Some tokenizers want the space after a special token, byte-level ones never add it: a probe
    tells.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", more_special: Sequence[str] = ()
    ) -> None:
        """`more_special` are added tokens that do not come of a text either."""
        self._tokenizer: Any = tokenizer
        self._fast: Any = _with_special(tokenizer.backend_tokenizer, more_special)
        self._fast.no_truncation()
        self._fast.no_padding()
        self._word_table = WordTable(self._encode, self._fast)
        self._newline_ids = self._alone(["\n"])[0]
        self._lead = self._leads()

    def documents(self, texts: list[str]) -> list[TokenizedText]:
        """Tokens of documents or stretches of them, without bos and eos."""
        return self._word_table(texts)

    def ids(self, texts: list[tuple[str, str]]) -> list[list[int]]:
        """Of each (text, what it follows: "nothing", "special" or "text")."""
        leads = [self._lead[follows] for _, follows in texts]
        found = self._alone([lead + text for lead, (text, _) in zip(leads, texts, strict=True)])
        return [
            self._without_lead(ids, lead, text)
            for ids, lead, (text, _) in zip(found, leads, texts, strict=True)
        ]

    def _alone(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return [found.ids.tolist() for found in self._word_table(texts)]

    def _encode(self, texts: list[str]) -> "list[Encoding]":
        """Not through transformers, which sets the tokenizer's options at each call and therefore
        cannot be called by several threads. Raises SettingsError where it does not end: a pattern
        of tokenizer.json may try all there is at each character."""
        if not self._fast.encode_special_tokens:
            self._fast.encode_special_tokens = True
        chars = sum(map(len, texts))
        seconds = MOST_S + chars / LEAST_CHARS_PER_S
        try:
            encodings: list[Encoding] = native.within(
                seconds, lambda: self._fast.encode_batch(texts, add_special_tokens=False)
            )
        except native.NoEndError:
            raise SettingsError(
                f"the base model's tokenizer did not end within {seconds:.0f} s for {chars:,} "
                "characters; choose another QLORA_BASE_MODEL or repair its tokenizer.json"
            ) from None
        return encodings

    def _leads(self) -> dict[str, str]:
        """What is put before a text, by what it follows."""
        alone = self._alone(["a"])[0]
        joint = self._tokenizer(self._tokenizer.eos_token + "a", add_special_tokens=False)
        behind_newline = self._without_lead(self._alone(["\na"])[0], "\n", "a")
        return {
            "nothing": "",
            "special": "" if joint["input_ids"][1:] == alone else "\n",
            "text": "" if behind_newline == alone else "\n",
        }

    def _without_lead(self, ids: list[int], lead: str, text: str) -> list[int]:
        if not lead:
            return ids
        length = len(self._newline_ids)
        if ids[:length] == self._newline_ids:
            return ids[length:]
        return self._alone([text])[0]  # the newline merged with the text: no space was added


def _with_special(fast: Any, tokens: Sequence[str]) -> Any:
    """`fast`, or a copy to which `tokens` are special: only those can be kept out of a text."""
    if not tokens:
        return fast
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(fast.to_str())
    copy.add_special_tokens(list(tokens))
    return copy
