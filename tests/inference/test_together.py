"""Questions of several at once: each is answered as alone, and whoever leaves frees the row."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.small_models import tuned_model

from trainer.engine import greedy_decoder
from trainer.engine.decode_rows import DecodeRows
from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.engine.prompt import Prompt
from trainer.errors import JobError
from trainer.inference.stock_decoder import StockDecoder
from trainer.inference.together import Together

NEVER = [331]
PROMPTS = [Prompt([5 + at, 9, 100][: 1 + at % 3], 4 + 5 * (at % 4)) for at in range(12)]
LONG = Prompt([7, 8], 3000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tuned_model("llama", tmp_path_factory.mktemp("model"), "q_proj,v_proj").eval()


@pytest.fixture(scope="module")
def decoder(model: Any) -> GreedyDecoder:
    return GreedyDecoder(model, NEVER)


@pytest.fixture
def together() -> Iterator[Together]:
    made = Together()
    yield made
    made.finish()


class Widths:
    """How many rows each step has had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = [0]
        step = DecodeRows.step

        def counted(rows: DecodeRows, running: int, *, tuned: bool) -> None:
            self.seen.append(running)
            step(rows, running, tuned=tuned)

        monkeypatch.setattr(DecodeRows, "step", counted)


def all_at_once(ask: Callable[[int], Any], count: int) -> list[Any]:
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda at=at: found.update({at: ask(at)})) for at in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [found[at] for at in range(count)]


def test_who_asks_at_once_is_answered_together_and_as_alone(
    model: Any, decoder: GreedyDecoder, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tuned and base, in our loop and in transformers'."""
    alone = [list(decoder.stream(p, tuned=at % 5 > 0)) for at, p in enumerate(PROMPTS)]
    widths, held = Widths(monkeypatch), together.tokens(decoder, LONG, tuned=False)
    next(held)  # the others wait for another's turn meanwhile, all in one line

    def ask(at: int) -> list[int]:
        return list(together.tokens(decoder, PROMPTS[at], tuned=at % 5 > 0))

    threading.Timer(0.5, held.close).start()
    assert all_at_once(ask, len(PROMPTS)) == alone
    assert max(widths.seen) > 2
    stock = StockDecoder(model, NEVER, 0)
    assert list(together.tokens(stock, PROMPTS[1], tuned=True)) == alone[1]


def test_a_question_joins_answers_that_are_being_made(
    decoder: GreedyDecoder, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths, first = Widths(monkeypatch), together.tokens(decoder, LONG, tuned=True)
    next(first)
    other = list(together.tokens(decoder, PROMPTS[3], tuned=True))
    assert len(other) == PROMPTS[3].most and max(widths.seen) == 2
    first.close()


def test_who_leaves_or_is_gone_frees_the_row(
    decoder: GreedyDecoder, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, widths = threading.Event(), Widths(monkeypatch)
    staying = together.tokens(decoder, LONG, tuned=True)
    leaving = [
        together.tokens(decoder, LONG, tuned=True),
        together.tokens(decoder, LONG, tuned=True, is_ended=gone.is_set),
    ]
    for answer in (staying, *leaving):
        next(answer)
    wait_for(lambda: widths.seen[-1] == 3)
    leaving[0].close()
    wait_for(lambda: widths.seen[-1] == 2)
    gone.set()
    assert len(list(leaving[1])) < LONG.most
    wait_for(lambda: widths.seen[-1] == 1)
    staying.close()


def test_who_waits_for_another_adapter_has_its_turn_before_who_comes_later(
    decoder: GreedyDecoder, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who overtook would join the rows of the first, and none would be opened for him."""
    opened: list[bool] = []
    open_rows = decoder.open

    def noted(*sizes: int, tuned: bool) -> Any:
        opened.append(tuned)
        return open_rows(*sizes, tuned=tuned)

    monkeypatch.setattr(decoder, "open", noted)
    first = together.tokens(decoder, Prompt([7], 60), tuned=True)
    next(first)
    threads = []
    for tuned in (False, True):
        ask = together.tokens(decoder, Prompt([9], 3), tuned=tuned)
        threads.append(threading.Thread(target=list, args=(ask,)))
        threads[-1].start()
        wait_for(lambda: len(together._line) == len(threads) or len(opened) > 1)
    list(first)
    for thread in threads:
        thread.join(120)
    assert opened == [True, False, True]


def test_where_memory_runs_out_fewer_are_answered_together(
    model: Any, decoder: GreedyDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [list(decoder.stream(prompt, tuned=True)) for prompt in PROMPTS]

    class Few(DecodeRows):
        def __init__(self, model: Any, rows: int, *more: Any) -> None:
            if rows > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            super().__init__(model, rows, *more)

    monkeypatch.setattr(greedy_decoder, "DecodeRows", Few)
    together, short = Together(), GreedyDecoder(model, NEVER)

    def ask(at: int) -> list[int]:
        for _ in range(9):
            try:
                return list(together.tokens(short, PROMPTS[at], tuned=True))
            except JobError as error:
                assert "memory ran out for this answer; ask again" in str(error)
        raise AssertionError("never answered")

    try:
        assert all_at_once(ask, len(PROMPTS)) == expected
    finally:
        together.finish()


def test_an_answer_that_fails_does_not_end_the_others_to_come(
    decoder: GreedyDecoder, together: Together
) -> None:
    with pytest.raises(IndexError):
        list(together.tokens(decoder, Prompt([10**6], 4), tuned=True))
    whole = list(decoder.stream(PROMPTS[0], tuned=True))
    assert list(together.tokens(decoder, PROMPTS[0], tuned=True)) == whole


def test_its_end_ends_all_answers_and_takes_no_more(decoder: GreedyDecoder) -> None:
    ending = Together()
    answer = ending.tokens(decoder, LONG, tuned=True)
    next(answer)
    ending.finish()
    assert len(list(answer)) < LONG.most - 1
    assert list(ending.tokens(decoder, PROMPTS[0], tuned=True)) == []


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)
