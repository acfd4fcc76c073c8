"""Files of every accepted format -> documents, prompt/completion records and conversations.

What cannot be used is skipped with its reason; too much of it ends the run. Formats that a
hostile file could use against their library are read in a child process with limits.
"""

from trainer.corpus.examples import (
    ROLES,
    Completion,
    Conversation,
    Example,
    Heading,
    Message,
    Text,
)
from trainer.corpus.formats import SUFFIXES
from trainer.corpus.reading import Corpus, Skipped, Source, read_corpus
from trainer.corpus.records import Columns
from trainer.corpus.structure import Outline

__all__ = [
    "ROLES",
    "SUFFIXES",
    "Columns",
    "Completion",
    "Conversation",
    "Corpus",
    "Example",
    "Heading",
    "Message",
    "Outline",
    "Skipped",
    "Source",
    "Text",
    "read_corpus",
]
