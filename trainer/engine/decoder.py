"""The engine: all layers of a decoder, the parameters that it trains, the plan that it follows."""

import gc
from dataclasses import replace
from typing import Any

import torch

from trainer.engine.activations import Batch, Passed, Saved
from trainer.engine.cpu_offload import Host
from trainer.engine.cuda_graphs import Graphs, Inputs, Loss
from trainer.engine.decoder_layer import LayerPass
from trainer.engine.lm_head import Head
from trainer.engine.lora_linear import Products
from trainer.engine.weights import layers_of
from trainer.kernels import Kernels, choose, choose_attention
from trainer.kernels.attention import Attention, Documents
from trainer.models.sharded_base import WholeBase
from trainer.planner.memory_plan import MemoryPlan


class Engine:
    """`loss_sum` is differentiable in `parameters` and in nothing else.

    Those are the adapter's, most of them as one: its tensors become views of a single one, so that
    an optimizer starts one kernel instead of hundreds. 8-bit AdamW works in blocks of 256 values
    and treats tensors under 4,096 differently, so only tensors that make no difference to it join.
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
    ) -> None:
        """`model` is a PeftModel for whose config `why_not` gives None; rows have `row_tokens`."""
        self._frozen = frozen or WholeBase()
        base = model.get_base_model()
        self.layers = list(layers_of(model))
        self.dtype = dtype
        self._head = base.get_output_embeddings().weight
        self._embedding = base.get_input_embeddings().weight
        self._norm = base.model.norm
        self._rotary = base.model.rotary_emb
        self.device = self._head.device
        self._k = kernels or choose(self.device.type)
        self._attention = attention or choose_attention(self.device, row_tokens)
        linears = [linear for layer in self.layers for linear in layer.linears()]
        self._products = Products(linears, self._k, dtype, self.device)
        self._adapter = [p for linear in linears for p in linear.trained()]
        self._joined = [p for p in self._adapter if p.numel() >= 4096 and p.numel() % 256 == 0]
        self._apart = [p for p in self._adapter if all(p is not other for other in self._joined)]
        self.parameters = [*self._join(), *self._apart]
        self.graphs = Graphs(self, row_tokens, self.device)
        self._host: Host | None = None
        self.change(plan)

    def _join(self) -> list[torch.nn.Parameter]:
        """The tensors of `_joined` as views of one parameter."""
        if not self._joined:
            return []
        one = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in self._joined]))
        parts = one.data.split([p.numel() for p in self._joined])
        for parameter, part in zip(self._joined, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        return [one]

    def change(self, plan: MemoryPlan) -> None:
        """Go on with another plan; what is computed stays the same."""
        self._free()
        self.plan = plan
        self._keep_ends(on_host=plan.offload_embeddings)
        self._host = Host(self.device) if plan.offload else None
        self._layer = LayerPass(self._products, self._k, self._attention, plan)
        self._end = Head(self._head, self._norm, self._k, self.device, plan.logit_rows)
        try:
            for layer in self.layers[: plan.unpacked_layers]:
                for linear in layer.linears():
                    self._products.unpack(linear)
        except torch.OutOfMemoryError:  # it is there for speed alone
            self.change(replace(plan, unpacked_layers=0))

    def close(self) -> None:
        """Leave the model as it was, and free all memory but the adapter's."""
        self._free()
        self._keep_ends(on_host=False)

    def _free(self) -> None:
        self.graphs.clear()
        self._products.free()
        self._host = None
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _keep_ends(self, *, on_host: bool) -> None:
        for end in (self._embedding, self._head):  # which may be one
            if not on_host:
                end.data = end.data.to(self.device)
            elif end.device.type != "cpu":
                end.data = end.data.cpu().pin_memory()

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
        graphs = self.graphs if self.plan.graph else None
        loss: torch.Tensor = Loss.apply(self, graphs, inputs, *self.parameters)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def held_out_sum(
        self,
        input_ids_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        position_ids_BT: torch.Tensor,
        where: Documents,
    ) -> torch.Tensor:
        """The same sum without dropout, keeping nothing for a backward pass.

        The random state stays as it is, so that measuring changes no later step.
        """
        batch = self._batch(position_ids_BT, where, drops=False)
        x = self._k.embedding(input_ids_BT.flatten(), self._embedding.data, self.dtype)
        for number in self._frozen.gather_layers(range(len(self.layers))):
            x, _ = self._layer.forward(self.layers[number], x, batch, keep=False)
        return self._end.loss(x, labels_BT)[0]

    def forward(self, inputs: Inputs) -> Passed:
        batch = self._batch(inputs.position_ids_BT, inputs.where, drops=True)
        x = self._k.embedding(inputs.input_ids_BT.flatten(), self._embedding.data, self.dtype)
        saved = []
        first_kept = len(self.layers) - self.plan.stored_layers
        for number in self._frozen.gather_layers(range(len(self.layers))):
            layer = self.layers[number]
            out, state = self._layer.forward(layer, x, batch, keep=number >= first_kept)
            if self._host is not None and number < first_kept:
                self._host.store(number, state)
            saved.append(state)
            x = out
        loss, grad = self._end.loss(x, inputs.labels_BT)
        return Passed(batch, loss, saved, x, grad)

    def backward(self, passed: Passed, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of `parameters`, float32. What was passed is used up."""
        batch, saved = passed.batch, passed.saved
        grad = self._end.backward(passed.grad_MH, passed.x_MH, grad_loss)
        passed.grad_MH = passed.x_MH = torch.empty(0)
        for number in self._frozen.gather_layers(reversed(range(len(self.layers)))):
            if self._host is not None:
                self._host.fetch(number, saved)
            grad = self._layer.backward(
                self.layers[number], grad, saved[number], batch, lowest=number == 0
            )
            saved[number] = Saved(None)
        found = [[batch.gradients[id(p)] for p in group] for group in (self._joined, self._apart)]
        joined = [torch.cat([g.flatten() for g in found[0]])] if found[0] else []
        return [*joined, *found[1]]

    def stand_by(self) -> None:
        """What others' micro-batch needs of this worker, which has none of its own."""
        for order in (range(len(self.layers)), reversed(range(len(self.layers)))):
            for _ in self._frozen.gather_layers(order):
                pass

    def _batch(self, position_ids_BT: torch.Tensor, where: Documents, *, drops: bool) -> Batch:
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self._rotary(like, position_ids_BT.reshape(1, -1))
        # On a CPU that computes nothing again torch draws the masks, as it does for the stock path.
        draws = self.device.type == "cpu" and self.plan.stored_layers == len(self.layers)
        random = torch.randint(2**31, (1,), device=self.device) if drops and not draws else None
        halves = [torch.empty_like(p, dtype=self.dtype) for p in self._adapter]
        torch._foreach_copy_(halves, [p.detach() for p in self._adapter])
        of_each = {id(p): half for p, half in zip(self._adapter, halves, strict=True)}
        return Batch(where, cos[0], sin[0], of_each, drops, random)
