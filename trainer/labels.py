"""The label that every part of the trainer reads alike."""

IGNORED = -100  # of a token without loss: the number that torch and transformers leave out
