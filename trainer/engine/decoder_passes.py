"""Both passes of a decoder under one memory plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from trainer.engine.activations import Batch, DecoderActivations, Inputs, LayerActivations
from trainer.engine.adapter_parameters import AdapterParameters
from trainer.engine.cpu_offload import CpuOffload
from trainer.engine.cuda_graphs import GraphCache
from trainer.engine.decoder_layer import LayerPass
from trainer.engine.embedding_noise import add_noise
from trainer.engine.lm_head import LmHead
from trainer.engine.lora_linear import LinearPass
from trainer.engine.weights import DecoderWeights, LoraKey
from trainer.kernels import Kernels
from trainer.kernels.attention import Attention
from trainer.models.frozen_base import WholeBase
from trainer.planner.memory_plan import MemoryPlan


@dataclass(frozen=True)
class Backend:
    """What a decoder is computed by; a row of a micro-batch has `row_tokens`. Above 0
    `noise_alpha` is NEFTune's. Products of at most `fused_rows` tokens read NF4 weights as they
    are."""

    dtype: torch.dtype
    device: torch.device
    kernels: Kernels
    attention: Attention
    row_tokens: int
    noise_alpha: float = 0.0
    fused_rows: int = 0


class DecoderPasses:
    """Both passes under `plan`. All that another plan replaces is in here: matrices that are
    unpacked, host memory, captured graphs. `free` gives it back."""

    def __init__(
        self,
        weights: DecoderWeights,
        adapter: AdapterParameters,
        base: WholeBase,
        backend: Backend,
        plan: MemoryPlan,
    ) -> None:
        self.plan = plan
        self._weights, self._adapter, self._base = weights, adapter, base
        self._dtype, self._device = backend.dtype, backend.device
        is_wide = weights.is_wide and backend.dtype == torch.float16
        self._stream = torch.float32 if is_wide else backend.dtype
        self._k, self._noise_alpha = backend.kernels, backend.noise_alpha
        self._linear = LinearPass(
            weights.linears(), self._k, self._dtype, self._device, backend.fused_rows
        )
        self._layer = LayerPass(self._linear, self._k, plan, backend.attention)
        self._head = LmHead(
            weights.head,
            weights.norm,
            weights.epsilon,
            self._k,
            self._device,
            plan.logit_rows,
            weights.logit_scale,
        )
        self._offload = CpuOffload(self._device) if plan.offload else None
        self.graphs = GraphCache(self, backend.row_tokens, self._device) if plan.graph else None

    def unpack(self, adapter: Mapping[LoraKey, torch.Tensor] | None = None) -> bool:
        """Unpack the weights of the plan's layers; False where memory runs out in between.

        With an `adapter`, which stays as it is, products that have one input become one.
        """
        try:
            for layer in self._weights.layers[: self.plan.unpacked_layers]:
                together = layer.qkv if adapter is not None else ()
                if adapter is not None:
                    self._linear.join(together, adapter)
                for linear in layer.linears():
                    if not any(linear is other for other in together):
                        self._linear.unpack(linear)
        except torch.OutOfMemoryError:
            return False
        return True

    @property
    def has_resident_base(self) -> bool:
        return self._base.is_resident

    def free(self) -> None:
        if self.graphs is not None:
            self.graphs.clear()
        self._linear.free()
        self._offload = None

    def forward(self, inputs: Inputs) -> DecoderActivations:
        batch = self._batch(inputs, drops=True)
        x = self._embedded(inputs)
        if self._noise_alpha:
            x = add_noise(x, inputs.where.starts, self._noise_alpha)
        saved = []
        first_stored = len(self._weights.layers) - self.plan.stored_layers
        for number in self._base.gather_layers(range(len(self._weights.layers))):
            layer, store = self._weights.layers[number], number >= first_stored
            out, state = self._layer.forward(layer, x, batch, store=store)
            if self._offload is not None and not store:
                self._offload.store(number, state)
            saved.append(state)
            x = out
        loss, grad = self._head.loss(x, inputs.labels_BT)
        return DecoderActivations(batch, loss, saved, x, grad)

    def backward(self, saved: DecoderActivations, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of the adapter's `parameters`, float32. What was saved is used up."""
        batch, layers = saved.batch, saved.layers
        grad = self._head.backward(saved.grad_MH, saved.x_MH, grad_loss)
        saved.grad_MH = saved.x_MH = torch.empty(0)
        for number in self._base.gather_layers(reversed(range(len(layers)))):
            if self._offload is not None:
                self._offload.fetch(number, layers)
            grad = self._layer.backward(
                self._weights.layers[number], grad, layers[number], batch, lowest=number == 0
            )
            layers[number] = LayerActivations(None)
        return self._adapter.gradients(batch.gradients)

    def held_out_sum(self, inputs: Inputs) -> torch.Tensor:
        """The loss without dropout, saving nothing for a backward pass."""
        batch = self._batch(inputs, drops=False)
        x = self._embedded(inputs)
        for number in self._base.gather_layers(range(len(self._weights.layers))):
            x, _ = self._layer.forward(self._weights.layers[number], x, batch, store=False)
        return self._head.loss(x, inputs.labels_BT)[0]

    def layer_passes(self, attentions: Sequence[Attention]) -> list[LayerPass]:
        """One for each layer, with an attention of its own."""
        return [replace(self._layer, attention=attention) for attention in attentions]

    def next_logits(
        self,
        inputs: Inputs,
        weights: DecoderWeights,
        layers: Sequence[LayerPass],
        adapter: Mapping[LoraKey, torch.Tensor],
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits of the token after each, or after those at `last` alone: [M, V].

        `weights` are these passes' own, with or without the adapter, whose tensors are given in the
        compute dtype; its dropout is off.
        """
        batch = self._batch(inputs, drops=False, adapter=adapter)
        x = self._embedded(inputs)
        for number in self._base.gather_layers(range(len(layers))):
            x, _ = layers[number].forward(weights.layers[number], x, batch, store=False)
        return self._head.logits(x if last is None else x[last])

    def _embedded(self, inputs: Inputs) -> torch.Tensor:
        ids, table = inputs.input_ids_BT.flatten(), self._weights.embedding.data
        x_MH: torch.Tensor = self._k.embedding(ids, table, self._stream)
        scale = self._weights.embedding_scale
        return x_MH if scale == 1 else x_MH.mul_(scale)

    def _batch(
        self,
        inputs: Inputs,
        *,
        drops: bool,
        adapter: Mapping[LoraKey, torch.Tensor] | None = None,
    ) -> Batch:
        like = torch.empty(0, dtype=self._dtype, device=self._device)
        rotations = self._weights.rotations(like, inputs.position_ids_BT)
        # On a CPU that computes nothing again torch draws the masks, as it does for the stock path.
        stores_all = self.plan.stored_layers == len(self._weights.layers)
        draws = self._device.type == "cpu" and stores_all
        random = torch.randint(2**31, (1,), device=self._device) if drops and not draws else None
        given = self._adapter.copies(self._dtype) if adapter is None else adapter
        return Batch(inputs.where, rotations, given, drops, random, rows=len(inputs.input_ids_BT))
