"""The data side of a run: tokenise once, drop copies, hold out, pack and count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.corpus.examples import Text
from trainer.dataset import holdout
from trainer.dataset.counts import (
    check_masked,
    count,
    count_held_out,
    log_counts,
    match,
    noticed_of_evaluation,
)
from trainer.dataset.eval_questions import (
    MOST_MATCHED,
    MOST_QUESTIONS,
    MOST_TRAINED,
    Question,
    questions_of,
)
from trainer.dataset.holdout import HeldOutBy, loss_name
from trainer.dataset.inputs import Inputs, fetch_inputs, reader_of
from trainer.dataset.packing import Block, Blocks
from trainer.dataset.selection import (
    TEXT,
    Mask,
    Selection,
    TokenizedCorpus,
    drop_copies,
    warn_of_copies,
)
from trainer.dataset.tokenise import Tokenisation, tokenise_files, tokenise_halves
from trainer.dataset.told_by_documents import told_by_documents
from trainer.errors import DataError
from trainer.settings import Settings
from trainer.storage import Fetched
from trainer.tokenization.corpus_shards import ShardLocation
from trainer.tokenization.record_tokenizer import RecordTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Data:
    """What a run trains and is judged on, and how it was counted."""

    train: Sequence[Block]
    held_out: Sequence[Block]
    """what the loss is judged by: trained blocks where nothing was held out"""
    questions: list[Question]
    """some that were held out; where no question was, some that are trained"""
    trained_questions: list[Question]
    """some that are trained, beside those"""
    counts: dict[str, Any]
    trained: Selection
    """the examples that are packed into `train`"""

    @property
    def held_out_by(self) -> str:
        """A HeldOutBy."""
        return str(self.counts["held_out_by"])

    @property
    def loss_name(self) -> str:
        """What the loss of `held_out` is."""
        return loss_name(self.held_out_by)

    @property
    def thinks(self) -> bool:
        """Whether most answers that are trained begin with a thought."""
        return bool(2 * self.counts["thoughts"] > self.counts["records"])


@dataclass(frozen=True, eq=False)
class _Split:
    """Both sides of the data; `copies` of the evaluation data are trained too."""

    train: Selection
    held_out: Selection
    by: HeldOutBy
    copies: int = 0

    @property
    def judged(self) -> Selection:
        """By whose loss: what is trained, where nothing was held out."""
        return self.held_out if len(self.held_out) else self.train

    @property
    def asked(self) -> Selection:
        """Whose questions are asked."""
        return self.train if self.by == HeldOutBy.NOTHING else self.held_out


def prepare(
    settings: Settings,
    inputs: Inputs,
    tokenizer: "PreTrainedTokenizerBase",
    location: ShardLocation | None = None,
) -> Data:
    """Files to blocks of tokens, with a held-out part; all workers that share a `location`
    tokenise.

    Raises DataError when nothing is left.
    """
    how = Tokenisation(settings, tokenizer, RecordTokenizer(tokenizer), location)
    split = _split(inputs, how)
    counts = count(split.train)
    counts |= count_held_out(split.held_out, split.by) | {"evaluation_copies": split.copies}
    if split.by == HeldOutBy.EVALUATION_DATA:
        counts["assumed_first"] += noticed_of_evaluation(split.held_out.corpus.cache.tally)
    check_masked(split.train, settings.max_length, settings.max_skipped_share)
    blocks = _pack(split.train, how)
    if not len(blocks):
        raise DataError("the data holds nothing to train on once tokenised; add text")
    if not counts["trained_ends"] and split.by != HeldOutBy.END:
        raise DataError(
            f"every record is cut before its end at QLORA_MAX_LENGTH={settings.max_length}, so "
            f"that the model would never learn to stop; {counts['length_for_all']:,} holds them all"
        )
    counts |= {"padding_share": blocks.padding_share, "blocks": len(blocks)}
    counts |= match(_questions(split.train, MOST_MATCHED))
    asked = _questions(split.asked, MOST_QUESTIONS)
    if split.asked is not split.train:
        counts |= told_by_documents(split.train, asked, tokenizer)
    log_counts(split.train.corpus.cache.tally, counts, settings.max_length)
    return Data(
        blocks,
        _pack(split.judged, how),
        asked,
        _questions(split.train, MOST_TRAINED) if split.asked is not split.train else [],
        counts,
        split.train,
    )


def prepare_held_out(
    settings: Settings, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[Sequence[Block], list[Question]]:
    """What a run with these settings is judged by: EVAL_URI, or what it holds out of DATA_URI.

    Raises DataError when nothing is left.
    """
    inputs = fetch_inputs(settings)
    how = Tokenisation(settings, tokenizer, RecordTokenizer(tokenizer))
    if inputs.evaluation:
        judged = _evaluation(inputs, how)
        by = asked = Selection(judged, judged.kept)
    else:
        split = _hold_out(_tokenised(inputs.data, how), how)
        by, asked = split.judged, split.asked
    blocks = _pack(by, how)
    if not len(blocks):
        raise DataError("the data holds nothing to judge by once tokenised; add text or records")
    return blocks, _questions(asked, MOST_QUESTIONS)


def _split(inputs: Inputs, how: Tokenisation) -> _Split:
    """The data and the evaluation data, or the data in two."""
    data = _tokenised(inputs.data, how)
    if not inputs.evaluation:
        return _hold_out(data, how)
    judged = _evaluation(inputs, how)
    copies = warn_of_copies(data, judged)
    return _Split(
        Selection(data, data.kept),
        Selection(judged, judged.kept),
        HeldOutBy.EVALUATION_DATA,
        copies,
    )


def _tokenised(files: list[Fetched], how: Tokenisation) -> TokenizedCorpus:
    """Raises DataError where too much of the files cannot be used."""
    cache = tokenise_files(files, how)
    cache.tally.check(how.settings.max_skipped_share)
    return drop_copies(files, cache)


def _evaluation(inputs: Inputs, how: Tokenisation) -> TokenizedCorpus:
    """Raises DataError, which says that it is not the data that is at fault."""
    try:
        return _tokenised(inputs.evaluation, how)
    except DataError as error:
        raise DataError(f"the evaluation data, QLORA_EVAL_URI: {error}") from error


def _hold_out(corpus: TokenizedCorpus, how: Tokenisation) -> _Split:
    """Wordings, facts or documents by their keys; of a document alone its end."""
    halves = _halves(corpus, how)
    held = np.zeros(len(corpus.kept), bool)
    by = HeldOutBy.END
    if halves is not None:
        corpus, held = _divided(corpus, halves, how), np.array([False, True])
    else:
        rows = corpus.cache.rows[corpus.kept]
        found = holdout.hold_out(rows, rows["kind"] != TEXT)
        held[corpus.kept], by = found.mask, found.by
    train: Mask = corpus.kept & ~held
    return _Split(Selection(corpus, train), Selection(corpus, held), by)


def _halves(corpus: TokenizedCorpus, how: Tokenisation) -> tuple[Text, Text] | None:
    """Of the only document; None if it is not alone, or cannot be divided."""
    numbers = np.flatnonzero(corpus.kept)
    if len(numbers) != 1 or corpus.cache.rows["kind"][numbers[0]] != TEXT:
        return None
    reader = reader_of(how.settings, corpus.files)
    (document,) = (e for at, (_, e) in enumerate(reader) if at == numbers[0])
    assert isinstance(document, Text)
    return holdout.divide(document)


def _divided(
    corpus: TokenizedCorpus, halves: tuple[Text, Text], how: Tokenisation
) -> TokenizedCorpus:
    """The corpus of two documents; it still counts as the one that was read."""
    (source,) = corpus.cache.rows["source"][corpus.kept]
    cache = tokenise_halves(halves, int(source), corpus.files, how)
    tally = replace(corpus.cache.tally, examples=2, void=[])
    return replace(
        corpus,
        cache=replace(cache, tally=tally),
        copies=np.zeros(2, np.uint8),
        kept=np.ones(2, bool),
    )


def _pack(chosen: Selection, how: Tokenisation) -> Blocks:
    cache = chosen.corpus.cache
    starts, lengths = cache.sequences(chosen.chosen)
    pad_id = int(how.tokenizer.pad_token_id)
    return Blocks(cache.tokens, starts, lengths, how.settings.max_length, pad_id)


def _questions(chosen: Selection, most: int) -> list[Question]:
    conversations = chosen.corpus.cache.conversations
    found = [example for number, example in conversations if chosen.chosen[number]]
    return questions_of(found, most)
