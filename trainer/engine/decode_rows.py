"""Rows that are answered together: their cache, their state on the device, and one step of all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from trainer.engine.activations import Inputs
from trainer.engine.decoder_layer import LayerPass
from trainer.engine.decoder_passes import DecoderPasses
from trainer.engine.kv_cache import CachingAttention, Continued, KeyValueCache, Prompts, Step
from trainer.engine.prompt import Prompt
from trainer.engine.prompt_reading import LEAST_SAVED, LEAST_SHARED, HeldPrompts, Reading
from trainer.engine.sampling import drawn
from trainer.engine.weights import DecoderWeights, LoraKey
from trainer.kernels import Kernels
from trainer.kernels._triton import next_power_of_2
from trainer.kernels.attention import Attention, Documents
from trainer.kernels.decode_attention import Rows
from trainer.planner.decoding_plan import PROMPT_TOKENS


@dataclass(frozen=True)
class DecodeModel:
    """What answers: passes over weights with and without the adapter."""

    passes: DecoderPasses
    tuned: DecoderWeights
    base: DecoderWeights
    adapter: dict[LoraKey, torch.Tensor]  # in the compute dtype
    dtype: torch.dtype
    device: torch.device
    kernels: Kernels
    packed: Attention

    def weights(self, *, tuned: bool) -> DecoderWeights:
        return self.tuned if tuned else self.base


class DecodeRows:
    """Room for `rows` answers of at most `most` tokens, each with its prompt in `length` places.

    The running rows are always the first ones; on a GPU a step of them is one replay of a graph.
    All that a step reads and writes stays at its address.
    """

    def __init__(
        self, model: DecodeModel, rows: int, length: int, most: int, ends: Sequence[int]
    ) -> None:
        self.rows, self.length, self.most = rows, length, most
        self._model = model
        self._cache = KeyValueCache(model.tuned, rows, length, model.dtype, model.device)
        self._layers = self._layer_passes()
        self._ends = torch.tensor(ends, device=model.device)
        numbers = torch.zeros(4, rows, dtype=torch.int64, device=model.device)
        # Of each row: its last token, which is not yet read; tokens read; tokens answered, at most.
        self._tokens, self._lengths, self._counts, self._limits = numbers
        self._temperatures, self._top_p = torch.zeros(2, rows, device=model.device)
        self._draws = False  # whether a running row does
        is_cpu = model.device.type == "cpu"
        self._held = HeldPrompts(LEAST_SHARED if is_cpu else LEAST_SAVED)
        # One more, for what rows that have ended go on to say.
        self._answers = numbers.new_zeros(rows, most + 1)
        self._running = torch.zeros(rows, dtype=torch.bool, device=model.device)
        self._graphs: dict[tuple[int, bool, bool], Any] = {}
        self._pool: Any = None

    def _layer_passes(self) -> list[LayerPass]:
        model = self._model
        return model.passes.layer_passes(
            [
                CachingAttention(*self._cache.layer(number), model.kernels, model.packed)
                for number in range(len(model.tuned.layers))
            ]
        )

    def admit(self, prompts: Sequence[Prompt], first: int, *, tuned: bool) -> None:
        """Read prompts into the rows from `first` on, where the running ones end; their answers
        have a first token then."""
        goes_on = self._draws and first > 0
        self._draws = goes_on or any(prompt.temperature for prompt in prompts)
        logits = self._read(self._held.readings(prompts, first, tuned=tuned), tuned=tuned)
        part, device = slice(first, first + len(prompts)), self._model.device
        self._lengths[part] = torch.tensor([len(prompt.ids) for prompt in prompts]).to(device)
        self._counts[part] = 0
        self._limits[part] = torch.tensor([prompt.most for prompt in prompts]).to(device)
        self._temperatures[part] = torch.tensor([p.temperature for p in prompts]).to(device)
        self._top_p[part] = torch.tensor([prompt.top_p for prompt in prompts]).to(device)
        self._running[part] = True
        self._take(logits, part)

    def _read(self, waves: Sequence[Sequence[Reading]], *, tuned: bool) -> torch.Tensor:
        """Logits of the first token of each answer, in the order of the prompts: [prompts, V]."""
        made, order = [], []
        for wave in waves:
            for reading in wave:
                if reading.shared and reading.source != reading.row:
                    self._cache.move(reading.source, reading.row, reading.shared)
            for is_continued in (False, True):
                some = [reading for reading in wave if (reading.shared > 0) is is_continued]
                for part in _parts(some):
                    made.append(self._read_together(part, tuned=tuned))
                    order += [reading.at for reading in part]
        logits = torch.cat(made) if len(made) > 1 else made[0]
        if order == sorted(order):
            return logits
        return logits[torch.tensor(order).argsort().to(logits.device)]

    def _read_together(self, readings: Sequence[Reading], *, tuned: bool) -> torch.Tensor:
        """All whole, or all continued."""
        device = self._model.device
        sizes = torch.tensor([len(reading.rest) for reading in readings])
        begun = torch.tensor([reading.shared for reading in readings])
        ends = sizes.cumsum(0)
        ids = torch.tensor([token for reading in readings for token in reading.rest])
        positions = torch.arange(len(ids)) - (ends - sizes - begun).repeat_interleave(sizes)
        rows = torch.tensor([reading.row for reading in readings])
        places = (rows * self.length).repeat_interleave(sizes) + positions
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends]).int()
        where = Prompts(starts.to(device), int(sizes.max()), places.to(device))
        if readings[0].shared:
            where = self._continued(where, readings)
        return self._logits(ids.to(device), positions.to(device), where, tuned, ends - 1)

    def _continued(self, rest: Prompts, readings: Sequence[Reading]) -> Continued:
        sizes = torch.tensor([len(reading.ids) for reading in readings])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        rows = torch.tensor([reading.row for reading in readings])
        first = rows * self.length - starts[:-1]
        places = first.repeat_interleave(sizes) + torch.arange(int(starts[-1]))
        device = self._model.device
        return Continued(
            rest.starts,
            rest.longest,
            rest.places_M,
            tuple((r.row, len(r.rest), r.shared) for r in readings),
            places.to(device),
            keys=Documents(starts.int().to(device), int(sizes.max())),
        )

    def step(self, running: int, *, tuned: bool) -> None:
        """One more token for each of the first `running` rows that has not ended."""
        if self._model.device.type == "cpu":
            longest = int(self._lengths[:running].max()) + 1
            self._step(running, longest, tuned=tuned)
            return
        size = min(self.rows, next_power_of_2(running))
        if not self._model.passes.has_resident_base:  # which takes longer than starting kernels
            self._step(size, self.length, tuned=tuned)
            return
        kind = size, tuned, self._draws
        if kind not in self._graphs:
            self._graphs[kind] = self._captured(size, tuned=tuned)
        self._graphs[kind].replay()

    def _captured(self, size: int, *, tuned: bool) -> Any:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        aside = torch.cuda.Stream(self._model.device)
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compiles and allocates what a capture must not
            running = self._running.clone()
            self._running.zero_()  # a step of rows that have ended changes nothing that is read
            self._step(size, self.length, tuned=tuned)
            self._running.copy_(running)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step(size, self.length, tuned=tuned)
        return graph

    def _step(self, size: int, longest: int, *, tuned: bool) -> None:
        lengths = self._lengths[:size]
        where = Step(lengths, longest, Rows(lengths, longest))
        logits = self._logits(self._tokens[:size], lengths, where, tuned)
        lengths += self._running[:size]
        self._take(logits, slice(0, size))

    def _take(self, logits: torch.Tensor, part: slice) -> None:
        """A token of each row in `part` becomes the next of its answer: the likeliest, or drawn."""
        running, counts, temperatures = (
            of[part] for of in (self._running, self._counts, self._temperatures)
        )
        token = logits.argmax(-1)
        if self._draws:
            other = drawn(logits, temperatures, self._top_p[part])
            token = torch.where(temperatures > 0, other, token)
        self._answers[part].scatter_(1, counts[:, None], token[:, None])
        self._tokens[part] = torch.where(running, token, self._tokens[part])
        counts += running
        ended = (token[:, None] == self._ends).any(1) | (counts >= self._limits[part])
        running &= ~ended

    @torch.no_grad()
    def _logits(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        where: Prompts | Step,
        tuned: bool,
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        model = self._model
        inputs = Inputs(ids[None], ids[None], positions[None], where)
        if last is not None:
            last = last.to(model.device)
        weights = model.weights(tuned=tuned)
        return model.passes.next_logits(inputs, weights, self._layers, model.adapter, last)

    def running(self, rows: int) -> list[bool]:
        """Which of the first `rows` go on."""
        found: list[bool] = self._running[:rows].tolist()
        return found

    def newest(self, rows: int) -> list[int]:
        """The newest token of each of the first `rows`."""
        found: list[int] = self._tokens[:rows].tolist()
        return found

    def answers(self, rows: Sequence[int]) -> list[list[int]]:
        """The tokens of each of these rows, the one that ended it included."""
        at = torch.tensor(rows).to(self._answers.device)
        counts = self._counts[at].tolist()
        tokens = self._answers[at, : max(counts)].tolist()
        return [of[:count] for of, count in zip(tokens, counts, strict=True)]

    def move(self, source: int, target: int) -> None:
        """Go on with a row at the place of one that has ended, which may be itself."""
        if source == target:
            self._running[source] = False
            return
        self._cache.move(source, target, int(self._lengths[source]))
        self._held.move(source, target)
        numbers = self._tokens, self._lengths, self._counts, self._limits
        for tensor in (*numbers, self._temperatures, self._top_p, self._answers, self._running):
            tensor[target] = tensor[source]
        self._running[source] = False


def _parts(readings: Sequence[Reading]) -> Iterator[Sequence[Reading]]:
    """As many together as `PROMPT_TOKENS` allow: a token that is held already takes a quarter of
    the memory, as a copy of its key and its value."""
    begin = 0
    while begin < len(readings):
        sizes = accumulate(len(r.rest) + r.shared // 4 for r in readings[begin:])
        count = max(1, sum(size <= PROMPT_TOKENS for size in sizes))
        yield readings[begin : begin + count]
        begin += count
