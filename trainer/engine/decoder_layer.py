"""One decoder layer: attention and feed-forward network, forward and backward."""

from dataclasses import dataclass

import torch

from trainer.engine.activations import Batch, Saved
from trainer.engine.lora_linear import Input, Products
from trainer.engine.weights import Layer
from trainer.kernels import Kernels
from trainer.kernels.attention import Attention
from trainer.planner.memory_plan import MemoryPlan


@dataclass(frozen=True)
class LayerPass:
    """Both passes of a decoder layer, with what it is computed by."""

    products: Products
    kernels: Kernels
    attention: Attention
    plan: MemoryPlan

    def forward(
        self, layer: Layer, x: torch.Tensor, batch: Batch, *, keep: bool
    ) -> tuple[torch.Tensor, Saved]:
        saved = Saved(x)
        self._attend(layer, saved, batch)
        if not keep:
            saved.q_MHD = saved.k_MKD = saved.v_MKD = saved.unrotated = None
        out, gate, up = self._mlp(layer, saved, batch, keep=keep)
        if keep:
            saved.gate_MI, saved.up_MI = gate, up
            return out, saved
        attended = saved.attended if self.plan.keep_attention else None
        return out, Saved(x, attended)

    def backward(
        self, layer: Layer, grad: torch.Tensor, saved: Saved, batch: Batch, *, lowest: bool
    ) -> torch.Tensor:
        """Gradient of the layer's input; below the `lowest` layer there is nobody to use it."""
        x = saved.x_MH
        assert x is not None
        if saved.middle_MH is None:
            self._attend(layer, saved, batch)
        grad = self._mlp_backward(layer, grad, saved, batch)
        grads = self._attention_backward(layer, grad, saved, batch)
        h = self.kernels.rms_norm(x, layer.attention_norm, layer.epsilon)
        given, total = Input(h, saved, batch), None
        for linear, grad_y in zip((layer.q, layer.k, layer.v), grads, strict=True):
            flat = grad_y.reshape(len(x), -1)
            if lowest:
                self.products.adapter_backward(linear, flat, given)
            else:
                total = self.products.backward(linear, flat, given, into=total)
        if total is None:
            return grad
        out_x: torch.Tensor = self.kernels.rms_norm_backward(
            total, x, layer.attention_norm, layer.epsilon, grad
        )
        return out_x

    # -- attention ------------------------------------------------------------------------

    def _attend(self, layer: Layer, saved: Saved, batch: Batch) -> None:
        """From the layer's input to the middle of its residual stream, all of it in `saved`."""
        x = saved.x_MH
        assert x is not None
        given = Input(self.kernels.rms_norm(x, layer.attention_norm, layer.epsilon), saved, batch)
        q, k, v = (
            self.products.forward(n, given).view(len(x), -1, layer.head_size)
            for n in (layer.q, layer.k, layer.v)
        )
        del given
        if layer.q_norm is not None and layer.k_norm is not None:
            saved.unrotated = q, k
            q, k = (self._head_norm(n, w, layer) for n, w in ((q, layer.q_norm), (k, layer.k_norm)))
        saved.q_MHD, saved.k_MKD, saved.v_MKD = (
            self.kernels.rope(q, batch.cos_MD, batch.sin_MD),
            self.kernels.rope(k, batch.cos_MD, batch.sin_MD),
            v,
        )
        if saved.attended is None:
            saved.attended = self.attention.forward(q, k, v, batch.where)
        attended = saved.attended.out_MHD.reshape(len(x), -1)
        saved.middle_MH = self.products.forward(layer.o, Input(attended, saved, batch)).add_(x)

    def _attention_backward(
        self, layer: Layer, grad: torch.Tensor, saved: Saved, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients at the products q, k and v; what was saved of them is used up."""
        attended = saved.attended
        assert attended is not None and saved.q_MHD is not None
        assert saved.k_MKD is not None and saved.v_MKD is not None
        out = attended.out_MHD.reshape(len(grad), -1)
        grad_out = self.products.backward(layer.o, grad, Input(out, saved, batch))
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
        if saved.unrotated is not None:
            assert layer.q_norm is not None and layer.k_norm is not None
            q, k = saved.unrotated
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
        self, layer: Layer, saved: Saved, batch: Batch, *, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        x = saved.middle_MH
        assert x is not None
        out = torch.empty_like(x)
        if keep:
            gate, up = self._gate_up(layer, x, saved, batch)
            act = Input(self.kernels.swiglu(gate, up), saved, batch)
            return self.products.forward(layer.down, act).add_(x), gate, up
        for part in slices(len(x), self.plan.mlp_rows):
            saved.first_row = part.start
            act = Input(
                self.kernels.swiglu(*self._gate_up(layer, x[part], saved, batch)), saved, batch
            )
            torch.add(self.products.forward(layer.down, act), x[part], out=out[part])
        return out, None, None

    def _gate_up(
        self, layer: Layer, x: torch.Tensor, saved: Saved, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = Input(self.kernels.rms_norm(x, layer.mlp_norm, layer.epsilon), saved, batch)
        return self.products.forward(layer.gate, given), self.products.forward(layer.up, given)

    def _mlp_backward(
        self, layer: Layer, grad: torch.Tensor, saved: Saved, batch: Batch
    ) -> torch.Tensor:
        """Gradient at the middle of the residual stream."""
        x = saved.middle_MH
        assert x is not None
        saved.middle_MH = None
        if saved.gate_MI is not None and saved.up_MI is not None:
            gate, up = saved.gate_MI, saved.up_MI
            saved.gate_MI = saved.up_MI = None
            return self._mlp_part_backward(layer, grad, x, (gate, up), saved, batch)
        out = torch.empty_like(x)
        for part in slices(len(x), self.plan.mlp_rows):
            saved.first_row = part.start
            gate_up = self._gate_up(layer, x[part], saved, batch)
            out[part] = self._mlp_part_backward(layer, grad[part], x[part], gate_up, saved, batch)
        saved.first_row = 0
        return out

    def _mlp_part_backward(
        self,
        layer: Layer,
        grad: torch.Tensor,
        x: torch.Tensor,
        gate_up: tuple[torch.Tensor, torch.Tensor],
        saved: Saved,
        batch: Batch,
    ) -> torch.Tensor:
        """The same for some rows; `gate_up` are overwritten."""
        act = self.kernels.swiglu(*gate_up) if layer.down.lora_a is not None else None
        grad_act = self.products.backward(layer.down, grad, Input(act, saved, batch))
        del act
        grad_gate, grad_up = self.kernels.swiglu_backward(grad_act, *gate_up)
        del grad_act, gate_up
        adapted = layer.gate.lora_a is not None or layer.up.lora_a is not None
        h = self.kernels.rms_norm(x, layer.mlp_norm, layer.epsilon) if adapted else None
        given = Input(h, saved, batch)
        total = self.products.backward(layer.gate, grad_gate, given)
        del grad_gate
        total = self.products.backward(layer.up, grad_up, given, into=total)
        out_x: torch.Tensor = self.kernels.rms_norm_backward(
            total, x, layer.mlp_norm, layer.epsilon, grad
        )
        return out_x


def slices(rows: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]
