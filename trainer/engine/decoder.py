"""The engine: a decoder, the parameters that it trains, the memory plan that it follows."""

import gc
from dataclasses import replace
from typing import Any

import torch

from trainer.engine.activations import Inputs
from trainer.engine.adapter_parameters import AdapterParameters
from trainer.engine.cuda_graphs import DecoderLoss
from trainer.engine.decoder_passes import Backend, DecoderPasses
from trainer.engine.weights import DecoderWeights
from trainer.kernels import Kernels, choose, choose_attention
from trainer.kernels.attention import Attention, Documents
from trainer.models.frozen_base import WholeBase
from trainer.planner.memory_plan import MemoryPlan


class Engine:
    """`loss_sum` is differentiable in `parameters`, which are the adapter's, and in nothing else.

    All that follows from the plan is in one object, which `change` replaces.
    """

    def __init__(
        self,
        model: Any,
        *,
        dtype: torch.dtype,
        plan: MemoryPlan,
        row_tokens: int,
        kernels: Kernels | None = None,
        attention: Attention | None = None,
        frozen: WholeBase | None = None,
        noise_alpha: float = 0.0,
    ) -> None:
        """`model` is a PeftModel for whose config `why_not` gives None; rows have `row_tokens`."""
        self._weights = DecoderWeights.of(model)
        self._base = frozen or WholeBase()
        self.device = self._weights.head.device
        self._backend = Backend(
            dtype,
            self.device,
            kernels or choose(self.device.type),
            attention or choose_attention(self.device, row_tokens),
            row_tokens,
            noise_alpha,
        )
        self._adapter = AdapterParameters(self._weights.linears())
        self.parameters = self._adapter.parameters
        self._passes: DecoderPasses | None = None
        self.change(plan)

    @property
    def plan(self) -> MemoryPlan:
        return self._present.plan

    @property
    def _present(self) -> DecoderPasses:
        assert self._passes is not None  # `change` has made it
        return self._passes

    def change(self, plan: MemoryPlan) -> None:
        """Go on with another plan; what is computed stays the same."""
        self._follow(plan)
        if not self._present.unpack():  # unpacked weights are there for speed alone
            self._follow(replace(plan, unpacked_layers=0))

    def _follow(self, plan: MemoryPlan) -> None:
        self._free()
        self._place_embeddings(on_host=plan.offload_embeddings)
        self._passes = DecoderPasses(self._weights, self._adapter, self._base, self._backend, plan)

    def close(self) -> None:
        """Leave the model as it was, and free all memory but the adapter's."""
        self._free()
        self._place_embeddings(on_host=False)

    def _free(self) -> None:
        if self._passes is not None:
            self._passes.free()
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _place_embeddings(self, *, on_host: bool) -> None:
        for table in (self._weights.embedding, self._weights.head):  # which may be one
            if not on_host:
                table.data = table.data.to(self.device)
            elif table.device.type != "cpu":
                table.data = table.data.cpu().pin_memory()
                torch.cuda.empty_cache()

    def loss_sum(
        self,
        input_ids_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        position_ids_BT: torch.Tensor,
        where: Documents,
    ) -> torch.Tensor:
        """Sum of the cross-entropy of all labels that are not IGNORED, float32 scalar.

        The gradient is computed by `backward()` of the result and accumulates as usual.
        """
        inputs = Inputs(input_ids_BT, labels_BT, position_ids_BT, where)
        passes = self._present
        loss: torch.Tensor = DecoderLoss.apply(passes, passes.graphs, inputs, *self.parameters)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def held_out_sum(
        self,
        input_ids_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        position_ids_BT: torch.Tensor,
        where: Documents,
    ) -> torch.Tensor:
        """The same sum without dropout, saving nothing for a backward pass.

        The random state stays as it is, so that measuring changes no later step.
        """
        inputs = Inputs(input_ids_BT, labels_BT, position_ids_BT, where)
        passes = self._present
        return (passes.graphs or passes).held_out_sum(inputs)

    def stand_by(self) -> None:
        """What others' micro-batch needs of this worker, which has none of its own."""
        layers = range(len(self._weights.layers))
        for order in (layers, reversed(layers)):
            for _ in self._base.gather_layers(order):
                pass
