"""General language and general questions, to see what a model has forgotten by its training.

`general.json`, which was written for this, lies beside: some two thousand tokens, so that base and
tuned model read it in seconds on a CPU.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.corpus.examples import Conversation, Example, Message, Text
from trainer.dataset.packing import Block, Blocks
from trainer.tokenization.encode import encode
from trainer.tokenization.record_tokenizer import RecordTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SOURCE = Path(__file__).with_name("general.json")
BLOCK_TOKENS = 256


@dataclass(frozen=True)
class GeneralBlocks:
    """Prose of which every token counts, and questions of which the answers do."""

    text: Sequence[Block]
    answers: Sequence[Block]


def general_blocks(tokenizer: "PreTrainedTokenizerBase") -> GeneralBlocks:
    """What lies in `general.json`, as this tokenizer and its template write it."""
    found = json.loads(SOURCE.read_text(encoding="utf-8"))
    records = RecordTokenizer(tokenizer)
    return GeneralBlocks(
        _packed([Text(text) for text in found["texts"]], records, tokenizer),
        _packed([_asked(**pair) for pair in found["questions"]], records, tokenizer),
    )


def _asked(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def _packed(
    examples: Sequence[Example], records: RecordTokenizer, tokenizer: "PreTrainedTokenizerBase"
) -> Blocks:
    encoded = encode(examples, records, BLOCK_TOKENS)
    sequences = [tokens for example in encoded for tokens in example.sequences]
    lengths = np.array([len(tokens) for tokens in sequences], np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    pad_id = int(tokenizer.pad_token_id)
    return Blocks(np.concatenate(sequences), starts, lengths, BLOCK_TOKENS, pad_id)
