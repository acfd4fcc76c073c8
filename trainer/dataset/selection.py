"""Which examples of a tokenised corpus count: copies are dropped, the rest is chosen from."""

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.dedup import Copy, copies, shared
from trainer.corpus.examples import Text, printable
from trainer.dataset.file_types import count_by_file_type
from trainer.storage import Fetched
from trainer.tokenization.token_cache import KINDS, TokenCache

log = logging.getLogger(__name__)

TEXT = KINDS.index(Text)
_NAMED_FILES = 3

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TokenizedCorpus:
    """The tokens of some files, and which of their examples are neither void nor copies.

    `copies` (of dedup's `Copy`) and `kept` are [examples]; `kinds` counts what was kept, by the
    number in KINDS, `by_file_type` what files of each kind became.
    """

    files: list[Fetched]
    cache: TokenCache
    copies: npt.NDArray[np.uint8]
    kept: Mask
    kinds: Counter[int]
    by_file_type: dict[str, dict[str, int]]


@dataclass(frozen=True, eq=False)
class Selection:
    """Some of the examples of a corpus: `chosen` is [examples]."""

    corpus: TokenizedCorpus
    chosen: Mask

    @property
    def rows(self) -> Any:
        """Their rows, see `token_cache.EXAMPLE_ROW` [chosen]."""
        return self.corpus.cache.rows[self.chosen]

    def __len__(self) -> int:
        return int(self.chosen.sum())


def drop_copies(files: list[Fetched], cache: TokenCache) -> TokenizedCorpus:
    """Of several examples that are alike the first is kept."""
    found = copies(cache.signatures, cache.usable)
    kept: Mask = cache.usable & (found == Copy.NO)
    return TokenizedCorpus(
        files,
        cache,
        found,
        kept,
        Counter(cache.rows["kind"][kept].tolist()),
        count_by_file_type([file.name for file in files], cache, kept),
    )


def warn_of_copies(train: TokenizedCorpus, judged: TokenizedCorpus) -> int:
    """Say which evaluation data is also trained on: its scores say nothing about new data."""
    copied = judged.kept & shared(train.cache.signatures, judged.cache.signatures)
    number = int(copied.sum())
    if number:
        sources = np.unique(judged.cache.rows["source"][copied])
        names = [judged.files[source].name for source in sources[:_NAMED_FILES]]
        log.warning(
            "%d of %d examples of the evaluation data are also in the training data, as they are "
            "or nearly (%s%s): they make the result look better than it is",
            number,
            int(judged.kept.sum()),
            ", ".join(map(printable, names)),
            ", …" if len(sources) > len(names) else "",
        )
    return number
