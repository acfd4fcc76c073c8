"""Answers of a model that the engine knows: many at once, or one token by token."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from trainer.engine import support
from trainer.engine.adapter_parameters import AdapterParameters, copies_of, tensors_of
from trainer.engine.decode_rows import DecodeModel, DecodeRows
from trainer.engine.decoder_passes import Backend, DecoderPasses
from trainer.engine.prompt import Prompt
from trainer.engine.running_answers import RunningAnswers
from trainer.engine.weights import DecoderWeights
from trainer.kernels import Kernels, choose, choose_packed_attention
from trainer.models.frozen_base import WholeBase, streamed_base_of
from trainer.planner.decoding_plan import MLP_ROWS, DecodingNeeds, DecodingPlan, choose_decoding
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime import selftest
from trainer.runtime.device import free_gpu_bytes

LOOK_STEPS = 8  # of a GPU, which then waits for the CPU to see who has ended
ROUNDED = 64  # tokens: questions of about the same length find the same room


def why_not(model: Any) -> str | None:
    """Why this loop cannot answer with `model`, bare or a PeftModel; None where it can, up to
    `support.reach` tokens."""
    from peft import PeftModel
    from peft.tuners.lora.bnb import Linear4bit
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if (reason := support.why_not(base.config)) is not None:
        return reason
    if any(hasattr(layer, "linear_attn") for layer in base.get_decoder().layers):
        return "some of its layers keep a state, not keys and values"
    if any(hasattr(layer.mlp, "experts") for layer in base.get_decoder().layers):
        return "it sends each token to experts of its own"
    if base.device.type == "cuda" and base.dtype == torch.float32:
        return "a GPU's attention kernels take 16 bits"
    hooked = any(layer._forward_pre_hooks for layer in base.get_decoder().layers)
    if hooked and streamed_base_of(base) is None:
        return "its layers are gathered when they are called"
    if any("forward" in vars(module) for module in base.get_decoder().layers.modules()):
        return "its layers compute in another way"
    ends = base.get_input_embeddings(), base.get_output_embeddings()
    if any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in ends):
        return "its adapter is on more than the layers"
    adapted = {m for m in model.modules() if isinstance(m, BaseTunerLayer)}
    if adapted - set(base.get_decoder().layers.modules()):
        return "its adapter is on more than the layers"
    plain = all(type(m) is Linear4bit and _is_plain(m) for m in adapted)
    if not plain or (not adapted and model is not base):
        return "its adapter is no plain LoRA on 4-bit layers"
    try:
        DecoderWeights.of(model)
    except ValueError as error:  # not in NF4 with double quantisation
        return str(error)
    return None


def _is_plain(module: Any) -> bool:
    odd = module.merged or module.lora_variant or any(module.lora_bias.values())
    return not odd and len(module.active_adapters) == 1


class GreedyDecoder:
    """Answers end with one of the tokens `ends`, which is part of them, or at their limit.

    What is unpacked, allocated and captured is kept for the next call; `close` gives it back.
    """

    def __init__(self, model: Any, ends: Sequence[int], kernels: Kernels | None = None) -> None:
        """`model` is one for which `why_not` gives None."""
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._base = streamed_base_of(bare) or WholeBase()
        self._weights = DecoderWeights.of(model)
        self._ends = ends
        self._dtype, self._device = self._weights.head.dtype, self._weights.head.device
        self._kernels = kernels or choose(self._device.type)
        self._packed = choose_packed_attention(self._device)
        self._capability = None
        if self._device.type == "cuda":
            self._capability = torch.cuda.get_device_capability(self._device)
        self._made: DecodeModel | None = None
        self._rows: DecodeRows | None = None
        self._unpacks = True
        self._asked = 0  # rows that were wished for; there may be fewer

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        most: int,
        *,
        tuned: bool,
        most_rows: int | None = None,
    ) -> Iterator[tuple[int, list[int]]]:
        """The number of each prompt with its answer of at most `most` tokens, as they end.

        Finished rows are replaced by waiting prompts, the longest of which comes first. Raises
        torch.OutOfMemoryError; fewer rows may do then.
        """
        try:
            yield from self._answers(prompts, most, tuned, most_rows or len(prompts))
        except RuntimeError:  # where memory ran out, there is none for speed alone
            self._unpacks = False
            raise

    def _answers(
        self, prompts: Sequence[Sequence[int]], most: int, tuned: bool, most_rows: int
    ) -> Iterator[tuple[int, list[int]]]:
        waiting = deque(sorted(range(len(prompts)), key=lambda number: -len(prompts[number])))
        length = max(map(len, prompts), default=0) + most
        running = self.open(min(len(prompts), most_rows), length, most, tuned=tuned)
        while waiting or running:
            if waiting and (not running or running.free >= running.rows // 8 + 1):
                new = [waiting.popleft() for _ in range(min(running.free, len(waiting)))]
                running.join({number: Prompt(prompts[number], most) for number in new})
            else:
                for _ in range(1 if self._capability is None else LOOK_STEPS):
                    running.step()
            yield from running.take_ended()

    def stream(self, prompt: Prompt, *, tuned: bool) -> Iterator[int]:
        """The tokens of one answer, each as soon as it is known."""
        running = self.open(1, prompt.places, prompt.most, tuned=tuned)
        running.join({0: prompt})
        while running:
            yield running.newest()[0][1]
            if not running.take_ended():
                running.step()

    def open(self, questions: int, length: int, most: int, *, tuned: bool) -> RunningAnswers:
        """Room for so many answers together, or fewer, of at most `most` tokens, each with its
        prompt in `length`. Whatever was opened before is at its end."""
        return RunningAnswers(self._room(questions, length, most), tuned=tuned)

    def close(self) -> None:
        """Free all memory that is not the model's."""
        self._rows = None
        if self._made is not None:
            self._made.passes.free()
        self._made = None
        if self._capability is not None:
            torch.cuda.empty_cache()

    def _room(self, questions: int, length: int, most: int) -> DecodeRows:
        """Rows for so many questions or fewer."""
        kept = self._rows
        if kept is None or self._asked < questions or kept.length < length or kept.most < most:
            self._asked = questions
            self._rows = kept = None  # before there is room for another
            length = -(-length // ROUNDED) * ROUNDED
            plan = self.plan(questions, length)
            model = self._made = self._made or self._unpacked(plan)
            self._rows = kept = DecodeRows(model, plan.rows, length, most, self._ends)
        return kept

    def needs(self, length: int) -> DecodingNeeds:
        """Of rows that have `length` places."""
        first, head = self._weights.layers[0], self._weights.head
        return DecodingNeeds.of(
            layers=len(self._weights.layers),
            hidden=head.shape[1],
            intermediate=first.down.weight.shape[1] if first.down else 0,
            vocabulary=head.shape[0],
            kv=first.qkv_widths[1],
            layer_parameters=sum(math.prod(linear.weight.shape) for linear in first.linears()),
            row_tokens=length,
            value_bytes=self._dtype.itemsize,
        )

    def plan(self, questions: int, length: int) -> DecodingPlan:
        """For so many in rows of `length` places, with the memory that is free now."""
        return choose_decoding(
            self.needs(length),
            questions=questions,
            row_tokens=length,
            free_bytes=self._free_bytes(),
            capability=self._capability,
            resident=self._base.is_resident,
        )

    def _free_bytes(self) -> int:
        if self._capability is None:
            return selftest.free_host_bytes()
        return free_gpu_bytes(self._device)

    def _unpacked(self, plan: DecodingPlan) -> DecodeModel:
        adapter = copies_of(tensors_of(self._weights.linears()), self._dtype)
        passes = self._passes(plan if self._unpacks else replace(plan, unpacked_layers=0))
        if not passes.unpack(adapter):  # unpacked weights are there for speed alone
            passes.free()
            passes = self._passes(replace(plan, unpacked_layers=0))
        return DecodeModel(
            passes,
            self._weights,
            self._weights.without_adapter(),
            adapter,
            self._dtype,
            self._device,
            self._kernels,
            self._packed,
        )

    def _passes(self, plan: DecodingPlan) -> DecoderPasses:
        backend = Backend(
            self._dtype,
            self._device,
            self._kernels,
            self._packed,
            row_tokens=0,
            fused_rows=plan.fused_rows,
        )
        memory = MemoryPlan(0, mlp_rows=MLP_ROWS, unpacked_layers=plan.unpacked_layers)
        nothing_trained = AdapterParameters(())
        return DecoderPasses(self._weights, nothing_trained, self._base, backend, memory)
