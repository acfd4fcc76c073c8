"""Answers that are made together, and others that join them where one has ended."""

from collections.abc import Mapping

from trainer.engine.decode_rows import DecodeRows
from trainer.engine.prompt import Prompt


class RunningAnswers:
    """Which prompt each running row has, by a number that its asker gave it."""

    def __init__(self, rows: DecodeRows, *, tuned: bool) -> None:
        self._rows, self._tuned = rows, tuned
        self._asked: list[int] = []

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def rows(self) -> int:
        return self._rows.rows

    @property
    def free(self) -> int:
        """Rows for more."""
        return self._rows.rows - len(self._asked)

    def fits(self, prompt: Prompt) -> bool:
        """Whether a row has the places for it."""
        return prompt.places <= self._rows.length and prompt.most <= self._rows.most

    def join(self, prompts: Mapping[int, Prompt]) -> None:
        """Read them into free rows; each has a first token then."""
        self._rows.admit(list(prompts.values()), len(self._asked), tuned=self._tuned)
        self._asked += prompts

    def step(self) -> None:
        """One more token of each."""
        self._rows.step(len(self._asked), tuned=self._tuned)

    def newest(self, first: int = 0) -> list[tuple[int, int]]:
        """The newest token of each from the `first` row on, where all of them were running."""
        tokens = self._rows.newest(len(self._asked))
        return list(zip(self._asked, tokens, strict=True))[first:]

    def take_ended(self) -> list[tuple[int, list[int]]]:
        """Those that have ended, with all their tokens; their rows are free then."""
        running = self._rows.running(len(self._asked))
        ended = [row for row, goes_on in enumerate(running) if not goes_on]
        if not ended:
            return []
        numbers = [self._asked[row] for row in ended]
        found = list(zip(numbers, self._rows.answers(ended), strict=True))
        for row in reversed(ended):
            self._free(row)
        return found

    def leave(self, number: int) -> None:
        """Nobody waits for this one any more."""
        self._free(self._asked.index(number))

    def _free(self, row: int) -> None:
        self._rows.move(len(self._asked) - 1, row)
        self._asked[row] = self._asked[-1]
        self._asked.pop()
