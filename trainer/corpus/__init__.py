"""Files of every accepted format -> documents, prompt/completion records and conversations.

What cannot be used is skipped with its reason; too much of it ends the run. Formats that a
hostile file could use against their library are read in a child process with limits.
"""

from trainer.corpus.dedup import PERMUTATIONS, Copy, Prints, copies, prints, shared
from trainer.corpus.examples import (
    ROLES,
    Completion,
    Conversation,
    Example,
    Heading,
    Message,
    Text,
    shown,
)
from trainer.corpus.formats import SUFFIXES
from trainer.corpus.headings import Outline
from trainer.corpus.reader import Reader, Source, Tally
from trainer.corpus.records import Columns

__all__ = [
    "PERMUTATIONS",
    "ROLES",
    "SUFFIXES",
    "Columns",
    "Completion",
    "Conversation",
    "Copy",
    "Example",
    "Heading",
    "Message",
    "Outline",
    "Prints",
    "Reader",
    "Source",
    "Tally",
    "Text",
    "copies",
    "prints",
    "shared",
    "shown",
]
