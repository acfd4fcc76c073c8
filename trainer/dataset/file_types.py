"""What files of each kind became: records, documents, tokens, copies, and what was skipped."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.examples import Text
from trainer.corpus.formats import kind_of
from trainer.tokenization.token_cache import KINDS, TokenCache

Mask = npt.NDArray[np.bool_]


def count_by_file_type(
    names: Sequence[str], cache: TokenCache, kept: Mask
) -> dict[str, dict[str, int]]:
    """By the kind of file, see `formats.kind_of`, in the order of the first of each; JSON-ready.

    `names` are those of all files, `kept` [examples] says which examples are no copies. `turns`
    are those of conversations.
    """
    tally, counts = cache.tally, dict(_by_file(len(names), cache, kept))
    found: dict[str, dict[str, int]] = {}
    for number, name in enumerate(names):
        kind = kind_of(name)
        files, skipped = tally.files_by.get(kind, 0), tally.skipped_by.get(kind, 0)
        if not files and not skipped:
            continue  # what a program left, and was passed over
        known = found.setdefault(
            kind, {"files": files, **dict.fromkeys(counts, 0), "skipped": skipped}
        )
        for what, of_files in counts.items():
            known[what] += int(of_files[number])
    return found


def _by_file(files: int, cache: TokenCache, kept: Mask) -> Iterator[tuple[str, Any]]:
    """(what, how many of it in each file)."""
    rows = cache.rows
    is_text = rows["kind"] == KINDS.index(Text)
    sources = rows["source"]
    yield "records", np.bincount(sources[kept & ~is_text], minlength=files)
    yield "documents", np.bincount(sources[kept & is_text], minlength=files)
    for what in ("turns", "tokens"):
        yield what, np.bincount(sources[kept], rows[what][kept], minlength=files)
    yield "copies", np.bincount(sources[cache.usable & ~kept], minlength=files)
