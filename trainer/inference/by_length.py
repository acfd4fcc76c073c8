"""Short answers by our own loop, longer ones by transformers: where attention has a window, the two
see the same while no token is behind it."""

from collections.abc import Iterator, Sequence

from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.engine.prompt import Prompt
from trainer.engine.running_answers import RunningAnswers
from trainer.inference.stock_decoder import OneRunning, StockDecoder


class ByLength:
    """As `generate.Decoder`; `own` for prompts that have at most `longest` tokens with their
    answer."""

    def __init__(self, own: GreedyDecoder, stock: StockDecoder, longest: int) -> None:
        self._own, self._stock, self._longest = own, stock, longest

    def answers(
        self, prompts: Sequence[Sequence[int]], most: int, *, tuned: bool, most_rows: int
    ) -> Iterator[tuple[int, list[int]]]:
        lengths = [len(prompt) + most for prompt in prompts]
        for decoder in (self._own, self._stock):
            numbers = [at for at, length in enumerate(lengths) if self._of(length) is decoder]
            some = [prompts[number] for number in numbers]
            if some:
                found = decoder.answers(some, most, tuned=tuned, most_rows=most_rows)
                yield from ((numbers[at], answer) for at, answer in found)
                decoder.close()

    def open(
        self, questions: int, length: int, most: int, *, tuned: bool
    ) -> RunningAnswers | OneRunning:
        return self._of(length).open(questions, length, most, tuned=tuned)

    def stream(self, prompt: Prompt, *, tuned: bool) -> Iterator[int]:
        return self._of(prompt.places).stream(prompt, tuned=tuned)

    def close(self) -> None:
        self._own.close()
        self._stock.close()

    def _of(self, length: int) -> GreedyDecoder | StockDecoder:
        return self._own if length <= self._longest else self._stock
