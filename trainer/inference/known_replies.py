"""A base's answers kept on disk: a second run on the same questions does not ask it again."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from trainer.inference.reply import Reply
from trainer.runtime.json_records import read_object, well_formed
from trainer.runtime.naming import digest
from trainer.storage.files import staged

log = logging.getLogger(__name__)


class KnownReplies:
    """Those of one base, in one file. Two runs that end at once may lose what one of them adds."""

    def __init__(self, folder: Path, base: str) -> None:
        """`base` names all that decides its answers but the prompt: name, revision, precision."""
        self._path = folder / f"{digest(base)}.json"
        self._known: dict[str, Reply] = {}
        try:
            with well_formed("kept answers"):
                for key, kept in read_object(self._path).items():
                    self._known[key] = _reply(*kept)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s is not used: %s", self._path, error)

    def of(self, key: str) -> Reply | None:
        return self._known.get(key)

    def keep(self, replies: Mapping[str, Reply]) -> None:
        """Add answers by their keys."""
        self._known |= replies
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with staged(self._path, synced=False) as file:
            file.write(json.dumps({k: astuple(reply) for k, reply in self._known.items()}).encode())


def _reply(text: Any, stopped: Any, prompt_ids: Any, ids: Any) -> Reply:
    """Raises ValueError for what is none."""
    tokens = [*prompt_ids, *ids]
    if not (isinstance(text, str) and isinstance(stopped, bool)):
        raise ValueError("a kept answer is no text")
    if not all(type(token) is int and token >= 0 for token in tokens):
        raise ValueError("a kept answer holds what is no token")
    return Reply(text, stopped, tuple(prompt_ids), tuple(ids))


def key_of(prompt: Sequence[int], ends: Sequence[int], most: int) -> str:
    """Names a greedy answer: its prompt's tokens, template and all, and what ends it."""
    return digest(json.dumps([list(prompt), list(ends), most]))
