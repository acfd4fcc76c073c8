"""One decoder layer: attention and feed-forward network, forward and backward."""

from dataclasses import dataclass

import torch

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.lora_linear import LinearInput, LinearPass
from trainer.engine.weights import Layer
from trainer.kernels import Kernels
from trainer.kernels.attention import Attention
from trainer.planner.memory_plan import MemoryPlan


@dataclass(frozen=True)
class LayerPass:
    """Both passes of a decoder layer, with what it is computed by."""

    linear: LinearPass
    kernels: Kernels
    attention: Attention
    plan: MemoryPlan

    def forward(
        self, layer: Layer, x: torch.Tensor, batch: Batch, *, store: bool
    ) -> tuple[torch.Tensor, LayerActivations]:
        """The layer's output [M, H], and what its backward pass needs: with `store` all of it,
        otherwise what it is computed again from."""
        saved = LayerActivations(x)
        self._attend(layer, saved, batch)
        if not store:
            saved.q_MHD = saved.k_MKD = saved.v_MKD = saved.unnormed = None
        out, gate, up = self._mlp(layer, saved, batch, store=store)
        if store:
            saved.gate_MI, saved.up_MI = gate, up
            return out, saved
        attended = saved.attended if self.plan.keep_attention else None
        return out, LayerActivations(x, attended)

    def backward(
        self,
        layer: Layer,
        grad: torch.Tensor,
        saved: LayerActivations,
        batch: Batch,
        *,
        lowest: bool,
    ) -> torch.Tensor:
        """Gradient of the layer's input; below the `lowest` layer there is nobody to use it."""
        x = saved.x_MH
        assert x is not None
        if saved.middle_MH is None:
            self._attend(layer, saved, batch)
        grad = self._mlp_backward(layer, grad, saved, batch)
        grads = self._attention_backward(layer, grad, saved, batch)
        h = self.kernels.rms_norm(x, layer.attention_norm, layer.epsilon)
        given, total = LinearInput(h, saved, batch), None
        for linear, grad_y in zip((layer.q, layer.k, layer.v), grads, strict=True):
            flat = grad_y.reshape(len(x), -1)
            if lowest:
                self.linear.adapter_backward(linear, flat, given)
            else:
                total = self.linear.backward(linear, flat, given, into=total)
        if total is None:
            return grad
        out_x: torch.Tensor = self.kernels.rms_norm_backward(
            total, x, layer.attention_norm, layer.epsilon, grad
        )
        return out_x

    # -- attention ------------------------------------------------------------------------

    def _attend(self, layer: Layer, saved: LayerActivations, batch: Batch) -> None:
        """From the layer's input to the middle of its residual stream, all of it in `saved`."""
        x = saved.x_MH
        assert x is not None
        given = LinearInput(
            self.kernels.rms_norm(x, layer.attention_norm, layer.epsilon), saved, batch
        )
        q, k, v = (
            y.view(len(x), -1, layer.head_size)
            for y in self.linear.forward_together((layer.q, layer.k, layer.v), given)
        )
        del given
        if layer.q_norm is not None and layer.k_norm is not None:
            saved.unnormed = q, k
            q, k = (self._head_norm(n, w, layer) for n, w in ((q, layer.q_norm), (k, layer.k_norm)))
        saved.q_MHD, saved.k_MKD, saved.v_MKD = (
            self.kernels.rope(q, batch.cos_MD, batch.sin_MD),
            self.kernels.rope(k, batch.cos_MD, batch.sin_MD),
            v,
        )
        if saved.attended is None:
            saved.attended = self.attention.forward(q, k, v, batch.where)
        attended = saved.attended.out_MHD.reshape(len(x), -1)
        saved.middle_MH = self.linear.forward(layer.o, LinearInput(attended, saved, batch)).add_(x)

    def _attention_backward(
        self, layer: Layer, grad: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients at the products q, k and v; what was saved of them is used up."""
        attended = saved.attended
        assert attended is not None and saved.q_MHD is not None
        assert saved.k_MKD is not None and saved.v_MKD is not None
        out = attended.out_MHD.reshape(len(grad), -1)
        grad_out = self.linear.backward(layer.o, grad, LinearInput(out, saved, batch))
        grads = self.attention.backward(
            grad_out.view(attended.out_MHD.shape),
            saved.q_MHD, saved.k_MKD, saved.v_MKD, attended, batch.where,
        )  # fmt: skip
        del grad_out, out, attended
        saved.attended = saved.q_MHD = saved.k_MKD = saved.v_MKD = None
        grad_q, grad_k, grad_v = grads
        del grads
        grad_q = self.kernels.rope(grad_q.contiguous(), batch.cos_MD, batch.sin_MD, back=True)
        grad_k = self.kernels.rope(grad_k.contiguous(), batch.cos_MD, batch.sin_MD, back=True)
        if saved.unnormed is not None:
            assert layer.q_norm is not None and layer.k_norm is not None
            q, k = saved.unnormed
            grad_q = self._head_norm_backward(grad_q, q, layer.q_norm, layer)
            grad_k = self._head_norm_backward(grad_k, k, layer.k_norm, layer)
        return grad_q, grad_k, grad_v

    def _head_norm(self, x_MHD: torch.Tensor, weight: torch.Tensor, layer: Layer) -> torch.Tensor:
        flat = x_MHD.reshape(-1, layer.head_size)
        normed: torch.Tensor = self.kernels.rms_norm(flat, weight, layer.epsilon)
        return normed.view(x_MHD.shape)

    def _head_norm_backward(
        self, grad_MHD: torch.Tensor, x_MHD: torch.Tensor, weight: torch.Tensor, layer: Layer
    ) -> torch.Tensor:
        flat, x = grad_MHD.reshape(-1, layer.head_size), x_MHD.reshape(-1, layer.head_size)
        grad: torch.Tensor = self.kernels.rms_norm_backward(flat, x, weight, layer.epsilon)
        return grad.view(x_MHD.shape)

    # -- feed-forward network -------------------------------------------------------------

    def _mlp(
        self, layer: Layer, saved: LayerActivations, batch: Batch, *, store: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        x = saved.middle_MH
        assert x is not None
        out = torch.empty_like(x)
        if store:
            gate, up = self._gate_up(layer, x, saved, batch)
            act = LinearInput(self.kernels.swiglu(gate, up), saved, batch)
            return self.linear.forward(layer.down, act).add_(x), gate, up
        for rows in slices(len(x), self.plan.mlp_rows):
            saved.first_row = rows.start
            act = LinearInput(
                self.kernels.swiglu(*self._gate_up(layer, x[rows], saved, batch)), saved, batch
            )
            torch.add(self.linear.forward(layer.down, act), x[rows], out=out[rows])
        return out, None, None

    def _gate_up(
        self, layer: Layer, x: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = LinearInput(self.kernels.rms_norm(x, layer.mlp_norm, layer.epsilon), saved, batch)
        return self.linear.forward(layer.gate, given), self.linear.forward(layer.up, given)

    def _mlp_backward(
        self, layer: Layer, grad: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> torch.Tensor:
        """Gradient at the middle of the residual stream."""
        x = saved.middle_MH
        assert x is not None
        saved.middle_MH = None
        if saved.gate_MI is not None and saved.up_MI is not None:
            gate, up = saved.gate_MI, saved.up_MI
            saved.gate_MI = saved.up_MI = None
            return self._mlp_rows_backward(layer, grad, x, (gate, up), saved, batch)
        out = torch.empty_like(x)
        for rows in slices(len(x), self.plan.mlp_rows):
            saved.first_row = rows.start
            gate_up = self._gate_up(layer, x[rows], saved, batch)
            out[rows] = self._mlp_rows_backward(layer, grad[rows], x[rows], gate_up, saved, batch)
        saved.first_row = 0
        return out

    def _mlp_rows_backward(
        self,
        layer: Layer,
        grad: torch.Tensor,
        x: torch.Tensor,
        gate_up: tuple[torch.Tensor, torch.Tensor],
        saved: LayerActivations,
        batch: Batch,
    ) -> torch.Tensor:
        """The same for some rows; `gate_up` are overwritten."""
        act = self.kernels.swiglu(*gate_up) if layer.down.lora is not None else None
        grad_act = self.linear.backward(layer.down, grad, LinearInput(act, saved, batch))
        del act
        grad_gate, grad_up = self.kernels.swiglu_backward(grad_act, *gate_up)
        del grad_act, gate_up
        adapted = layer.gate.lora is not None or layer.up.lora is not None
        h = self.kernels.rms_norm(x, layer.mlp_norm, layer.epsilon) if adapted else None
        given = LinearInput(h, saved, batch)
        total = self.linear.backward(layer.gate, grad_gate, given)
        del grad_gate
        total = self.linear.backward(layer.up, grad_up, given, into=total)
        out_x: torch.Tensor = self.kernels.rms_norm_backward(
            total, x, layer.mlp_norm, layer.epsilon, grad
        )
        return out_x


def slices(rows: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]
