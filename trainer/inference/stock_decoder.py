"""Answers through transformers, for models that the engine does not know."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from trainer.engine.prompt import Prompt
from trainer.inference.precision import compute_precision
from trainer.models.residual_stream import is_wide
from trainer.planner.memory_plan import FULL, HALF
from trainer.planner.model_shape import head_size, key_value_heads
from trainer.runtime.device import free_gpu_bytes

NEVER_DRAWN: Mapping[str, Any] = {"do_sample": False}
MIN_KV_CACHE_TOKENS = 4096  # 2 GiB of keys and values for Llama-2-7B in 16 bits


class StockDecoder:
    """As `generate.Decoder`. A base's own generation settings take no part."""

    def __init__(self, model: Any, ends: Sequence[int], pad: int) -> None:
        self._model, self._ends, self._pad = model, list(ends), pad
        self._adapter = model.active_adapter if hasattr(model, "peft_config") else None

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

    def open(self, questions: int, length: int, most: int, *, tuned: bool) -> "OneRunning":
        return OneRunning(self, tuned=tuned)

    def stream(self, prompt: Prompt, *, tuned: bool) -> Generator[int, None, None]:
        given = _Tokens()
        failures: list[BaseException] = []

        def stop(ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.tensor([given.closed.is_set()], device=ids.device)

        def generate() -> None:
            try:
                with_stop: dict[str, Any] = {"streamer": given, "stopping_criteria": [stop]}
                ids, mask = [list(prompt.ids)], [[1] * len(prompt.ids)]
                how = with_stop | {"draws": _draws(prompt)}
                self._generate(ids, mask, prompt.most, tuned=tuned, **how)
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
        draws: Mapping[str, Any] = NEVER_DRAWN,
        **how: Any,
    ) -> Any:
        model, device = self._model, self._model.device
        if self._adapter is not None:  # another may have answered since
            model.set_adapter(self._adapter)
        off = contextlib.nullcontext() if tuned else model.disable_adapter()
        with off, compute_precision(model):
            return model.generate(
                input_ids=torch.tensor(ids_BT, device=device),
                attention_mask=torch.tensor(mask_BT, device=device),
                generation_config=GenerationConfig(
                    **draws,
                    num_beams=1,
                    use_cache=True,
                    max_new_tokens=most,
                    pad_token_id=self._pad,
                    eos_token_id=self._ends,
                ),
                **how,
            )


class OneRunning:
    """As `generate.Running`: transformers gives one answer after the other."""

    rows = 1

    def __init__(self, decoder: StockDecoder, *, tuned: bool) -> None:
        self._decoder, self._tuned = decoder, tuned
        self._tokens: Generator[int, None, None] | None = None
        self._number = 0
        self._said: list[int] = []

    def __len__(self) -> int:
        return int(self._tokens is not None)

    @property
    def free(self) -> int:
        return 1 - len(self)

    def fits(self, prompt: Prompt) -> bool:
        return True

    def join(self, prompts: Mapping[int, Prompt]) -> None:
        ((self._number, prompt),) = prompts.items()
        self._said = []
        self._tokens = self._decoder.stream(prompt, tuned=self._tuned)
        self.step()

    def step(self) -> None:
        assert self._tokens is not None
        self._newest = next(self._tokens, None)
        if self._newest is not None:
            self._said.append(self._newest)

    def newest(self, first: int = 0) -> list[tuple[int, int]]:
        return [] if self._newest is None else [(self._number, self._newest)]

    def take_ended(self) -> list[tuple[int, list[int]]]:
        if self._tokens is None or self._newest is not None:
            return []
        self._tokens = None
        return [(self._number, self._said)]

    def leave(self, number: int) -> None:
        assert self._tokens is not None
        self._tokens.close()
        self._tokens = None


def _draws(prompt: Prompt) -> Mapping[str, Any]:
    if not prompt.temperature:
        return NEVER_DRAWN
    how = {"temperature": prompt.temperature, "top_p": max(prompt.top_p, 1e-6), "top_k": 0}
    return {"do_sample": True, **how}


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
    is_fp16 = model.get_input_embeddings().weight.dtype == torch.float16
    value_bytes = FULL if is_fp16 and is_wide(model.config, "fp16") else HALF
    token_bytes = 2 * value_bytes * text.num_hidden_layers * key_value_heads(text) * head_size(text)
    free: int = free_gpu_bytes(model.device)
    return max(MIN_KV_CACHE_TOKENS, int(free // 2 // token_bytes))
