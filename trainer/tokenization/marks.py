"""Where the contents of a conversation stand in what a chat template makes of it: each is put
between two marks, which are taken out of the rendering again."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainer.corpus.examples import Unusable

# Characters for private use; a record that holds the first pair is marked with another one.
_PAIRS = (("\ue000", "\ue001"), ("\uf8d0", "\uf8d1"), ("\U000f0000", "\U000f0001"))


@dataclass(frozen=True)
class Region:
    """Characters [start, end) of a rendering that are the content of a message, or one part of it:
    thought, answer, name of a tool and arguments are numbered. A template may write one twice."""

    start: int
    end: int
    message: int
    part: int


@dataclass
class Marks:
    """The marks of one conversation, whose contents are `texts`. Raises Unusable where those hold
    every character that could be one."""

    texts: Iterable[str]
    messages: list[int] = field(default_factory=list)
    """of each part that was marked, the number of its message"""

    def __post_init__(self) -> None:
        found = [pair for pair in _PAIRS if not any(c in text for text in self.texts for c in pair)]
        if not found:
            raise Unusable("it holds all characters that could mark where its turns begin")
        self._open, self._close = found[0]

    def put(self, message: int, text: str) -> str:
        """`text` with marks around it. White space at its ends stays outside, where the template
        finds it."""
        core = text.strip()
        if not core:
            return text
        number = len(self.messages)
        self.messages.append(message)
        before, _, after = text.partition(core)
        opening = f"{self._open}{number}{self._close}"
        closing = f"{self._close}{number}{self._open}"
        return f"{before}{opening}{core}{closing}{after}"

    def take(self, rendered: str) -> tuple[str, list[Region]]:
        """(the text without marks, where each part stands in it), in order of the text."""
        pieces = re.split(
            f"([{self._open}{self._close}])([0-9]{{1,9}})[{self._open}{self._close}]", rendered
        )
        text, length = [pieces[0]], len(pieces[0])
        opened: dict[int, int] = {}
        regions: list[Region] = []
        for kind, digits, piece in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            number = int(digits)
            if kind == self._open:
                opened[number] = length
            elif number in opened and number < len(self.messages):  # else the template's own
                start = opened.pop(number)
                regions.append(Region(start, length, self.messages[number], number))
            text.append(piece)
            length += len(piece)
        return "".join(text), sorted(regions, key=lambda region: region.start)

    def lost(self, regions: Iterable[Region]) -> Counter[int]:
        """How many parts of each message are not among `regions`, where there are any."""
        written = {region.part for region in regions}
        lost = [m for part, m in enumerate(self.messages) if part not in written]
        return Counter(lost)
