"""What a model says to a question."""

from dataclasses import dataclass, field

CUT = " …"  # is shown behind an answer that the limit of tokens ended


@dataclass(frozen=True)
class Reply:
    """A generated answer; `stopped` says whether the model ended it by itself.

    `ids` are its tokens behind those of the question, `prompt_ids`, with the one that ended it.
    """

    text: str
    stopped: bool
    prompt_ids: tuple[int, ...] = field(repr=False, default=())
    ids: tuple[int, ...] = field(repr=False, default=())
