"""Greedy answers through transformers, for models that the engine does not know."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from trainer.inference.precision import compute_precision
from trainer.planner.model_shape import head_size, key_value_heads

MIN_KV_CACHE_TOKENS = 4096  # 2 GiB of keys and values for Llama-2-7B in 16 bits


class StockDecoder:
    """As `generate.Decoder`. A base's own generation settings take no part."""

    def __init__(self, model: Any, ends: Sequence[int], pad: int) -> None:
        self._model, self._ends, self._pad = model, list(ends), pad

    def answers(
        self, prompts: Sequence[Sequence[int]], most: int, *, tuned: bool, most_rows: int
    ) -> Iterator[tuple[int, list[int]]]:
        longest = max(map(len, prompts), default=0) + most
        rows = max(1, min(most_rows, _kv_cache_tokens(self._model) // longest))
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        for first in range(0, len(order), rows):
            numbers = order[first : first + rows]
            batch = [list(prompts[number]) for number in numbers]
            length = len(batch[0])
            ids = [[self._pad] * (length - len(p)) + p for p in batch]
            mask = [[0] * (length - len(p)) + [1] * len(p) for p in batch]
            out_BT = self._generate(ids, mask, most, tuned=tuned)
            for number, row in zip(numbers, out_BT, strict=True):
                yield number, self._until_end(row[length:].tolist())

    def _until_end(self, ids: list[int]) -> list[int]:
        length = next((at for at, token in enumerate(ids) if token in self._ends), len(ids))
        return ids[: length + 1]

    def stream(self, prompt: Sequence[int], most: int, *, tuned: bool) -> Iterator[int]:
        given = _Tokens()
        failures: list[BaseException] = []

        def stop(ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.tensor([given.closed.is_set()], device=ids.device)

        def generate() -> None:
            try:
                with_stop = {"streamer": given, "stopping_criteria": [stop]}
                self._generate([list(prompt)], [[1] * len(prompt)], most, tuned=tuned, **with_stop)
            except BaseException as error:
                failures.append(error)
            finally:
                given.end()

        worker = threading.Thread(target=generate, daemon=True)
        worker.start()
        try:
            yield from given.tokens()
        finally:
            given.closed.set()
            worker.join()  # an interpreter that ends while it computes aborts
        if failures:
            raise failures[0]

    def close(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def _generate(
        self,
        ids_BT: list[list[int]],
        mask_BT: list[list[int]],
        most: int,
        *,
        tuned: bool,
        **how: Any,
    ) -> Any:
        model, device = self._model, self._model.device
        off = contextlib.nullcontext() if tuned else model.disable_adapter()
        with off, compute_precision(model):
            return model.generate(
                input_ids=torch.tensor(ids_BT, device=device),
                attention_mask=torch.tensor(mask_BT, device=device),
                generation_config=GenerationConfig(
                    do_sample=False,
                    num_beams=1,
                    use_cache=True,
                    max_new_tokens=most,
                    pad_token_id=self._pad,
                    eos_token_id=self._ends,
                ),
                **how,
            )


class _Tokens(BaseStreamer):  # type: ignore[misc]
    """Tokens on their way from the thread that makes them."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self._queue: queue.Queue[int | None] = queue.Queue()
        self._prompt_is_over = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_is_over:
            self._queue.put(int(value))
        self._prompt_is_over = True

    def end(self) -> None:
        self._queue.put(None)

    def tokens(self) -> Iterator[int]:
        return iter(self._queue.get, None)


def _kv_cache_tokens(model: Any) -> int:
    """How many tokens' keys and values fit in half of the GPU memory that is free: a step of a 7B
    model takes about as long for forty answers as for ten."""
    if model.device.type == "cpu":
        return MIN_KV_CACHE_TOKENS
    text = model.config.get_text_config()
    token_bytes = 2 * 2 * text.num_hidden_layers * key_value_heads(text) * head_size(text)
    device_free, total = torch.cuda.mem_get_info()
    cap = torch.cuda.get_per_process_memory_fraction() * total
    free = float(min(device_free, cap - torch.cuda.memory_reserved()))
    return max(MIN_KV_CACHE_TOKENS, int(free / 2 / token_bytes))
