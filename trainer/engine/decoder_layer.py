"""One decoder layer: attention and feed-forward network, forward and backward."""

from dataclasses import dataclass
from functools import cached_property

import torch

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.delta_net import DeltaPass
from trainer.engine.feed_forward import FeedForward
from trainer.engine.lora_linear import LinearInput
from trainer.engine.mixture import MixturePass
from trainer.engine.residual_branch import ResidualBranch
from trainer.engine.weights import Layer
from trainer.kernels.attention import Attention


@dataclass(frozen=True)
class LayerPass(ResidualBranch):
    """Both passes of a decoder layer, with what it is computed by."""

    attention: Attention

    @cached_property
    def _dense(self) -> FeedForward:
        return FeedForward(self.linear, self.kernels, self.plan)

    @cached_property
    def _mixture(self) -> FeedForward:
        return MixturePass(self.linear, self.kernels, self.plan)

    def mlp(self, layer: Layer) -> FeedForward:
        return self._dense if layer.mixture is None else self._mixture

    def forward(
        self, layer: Layer, x: torch.Tensor, batch: Batch, *, store: bool
    ) -> tuple[torch.Tensor, LayerActivations]:
        """The layer's output [M, H], and what its backward pass needs: with `store` all of it,
        otherwise what it is computed again from."""
        saved = LayerActivations(x)
        self._attend(layer, saved, batch)
        if store:
            return self.mlp(layer).forward_stored(layer, saved, batch), saved
        saved.q_MHD = saved.k_MKD = saved.v_MKD = saved.unnormed = saved.attention_out_MH = None
        saved.gate_MHD = saved.products = None
        out = self.mlp(layer).forward_sliced(layer, saved, batch)
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
        grad = self.mlp(layer).backward(layer, grad, saved, batch)
        if layer.delta is not None:
            grads = self._delta_backward(layer, grad, saved, batch)
        else:
            grads = self._attention_backward(layer, grad, saved, batch)
        given = LinearInput(self.normed(layer.attention_norm, x, layer), saved, batch)
        flat = [grad_y.reshape(len(x), -1) for grad_y in grads]
        del grads
        total = self.linear.backward_of(layer.qkv, flat, given, lowest=lowest)
        if total is None:
            return grad
        return self.norm_backward(layer.attention_norm, total, x, layer, grad)

    def _attend(self, layer: Layer, saved: LayerActivations, batch: Batch) -> None:
        """From the layer's input to the middle of its residual stream, all of it in `saved`."""
        x = saved.x_MH
        assert x is not None
        given = LinearInput(self.normed(layer.attention_norm, x, layer), saved, batch)
        products = self.linear.forward_of(layer.qkv, layer.qkv_widths, given)
        del given
        if layer.delta is not None:
            saved.products = tuple(products)
            mixed = self._delta(batch).mix(layer.delta, products, batch.where)
        else:
            self._look_back(layer, products, saved, batch)
            mixed = _gated(saved)
        del products
        made = self.linear.forward(layer.o, LinearInput(mixed, saved, batch))
        if layer.attention_post_norm is not None:
            saved.attention_out_MH = made
        saved.middle_MH = self.joined(layer.attention_post_norm, made, x, layer)

    def _look_back(
        self, layer: Layer, products: list[torch.Tensor], saved: LayerActivations, batch: Batch
    ) -> None:
        """Attention, and what it needs of q, k and v, in `saved`."""
        q, k, v = (product.view(len(product), -1, layer.head_size) for product in products)
        if layer.gates_attention:
            q, saved.gate_MHD = (
                part.contiguous() for part in q.view(len(q), -1, 2, layer.head_size).unbind(2)
            )
        if layer.q_norm is not None and layer.k_norm is not None:
            saved.unnormed = q, k
            q, k = (self._head_norm(n, w, layer) for n, w in ((q, layer.q_norm), (k, layer.k_norm)))
        q, k = self._rotated(layer, q, k, batch, back=False)
        saved.q_MHD, saved.k_MKD, saved.v_MKD = q, k, v
        if saved.attended is None:
            saved.attended = self.attention.forward(q, k, v, batch.where)

    def _rotated(
        self, layer: Layer, q_MHD: torch.Tensor, k_MKD: torch.Tensor, batch: Batch, *, back: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both in place where their order stays, q scaled; `back` is the gradient."""
        if layer.query_scale != 1:
            q_MHD.mul_(layer.query_scale)
        if layer.rope is None:
            return q_MHD, k_MKD
        order, (cos, sin) = layer.head_order, batch.rotations[layer.rope]
        if order is not None and not back:
            q_MHD, k_MKD = q_MHD[..., order], k_MKD[..., order]
        self.kernels.rope(q_MHD, cos, sin, back=back)
        self.kernels.rope(k_MKD, cos, sin, back=back)
        if order is not None and back:
            order = order.argsort()
            q_MHD, k_MKD = q_MHD[..., order], k_MKD[..., order]
        return q_MHD, k_MKD

    def _attention_backward(
        self, layer: Layer, grad: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> tuple[torch.Tensor, ...]:
        """Gradients at the products q, k and v; what was saved of them is used up."""
        attended = saved.attended
        assert attended is not None and saved.q_MHD is not None
        assert saved.k_MKD is not None and saved.v_MKD is not None
        out, gate = _gated(saved), saved.gate_MHD
        grad = self.branch_gradient(layer.attention_post_norm, grad, saved.attention_out_MH, layer)
        saved.attention_out_MH = saved.gate_MHD = None
        grad_out = self.linear.backward(layer.o, grad, LinearInput(out, saved, batch))
        grad_gate = None
        if gate is not None:
            share, grad_gated = gate.sigmoid(), grad_out.view(gate.shape)
            grad_gate = grad_gated * attended.out_MHD * share * (1 - share)
            grad_out = grad_gated * share
        grads = self.attention.backward(
            grad_out.view(attended.out_MHD.shape),
            saved.q_MHD, saved.k_MKD, saved.v_MKD, attended, batch.where,
        )  # fmt: skip
        del grad_out, out, attended
        saved.attended = saved.q_MHD = saved.k_MKD = saved.v_MKD = None
        grad_q, grad_k, grad_v = grads
        del grads
        grad_q, grad_k = grad_q.contiguous(), grad_k.contiguous()
        grad_q, grad_k = self._rotated(layer, grad_q, grad_k, batch, back=True)
        if saved.unnormed is not None:
            assert layer.q_norm is not None and layer.k_norm is not None
            q, k = saved.unnormed
            grad_q = self._head_norm_backward(grad_q, q, layer.q_norm, layer)
            grad_k = self._head_norm_backward(grad_k, k, layer.k_norm, layer)
        if grad_gate is not None:
            grad_q = torch.cat((grad_q, grad_gate), dim=-1)
        return grad_q, grad_k, grad_v

    def _delta_backward(
        self, layer: Layer, grad: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> tuple[torch.Tensor, ...]:
        """Gradients at the products that a `DeltaNet` was given."""
        assert layer.delta is not None and saved.products is not None
        delta = self._delta(batch)
        with torch.enable_grad():
            given = [product.detach().requires_grad_() for product in saved.products]
            out = delta.mix(layer.delta, given, batch.where)
        saved.products = None
        grad_out = self.linear.backward(layer.o, grad, LinearInput(out.detach(), saved, batch))
        return delta.gradients(out, given, grad_out)

    def _delta(self, batch: Batch) -> DeltaPass:
        return DeltaPass(self.kernels, batch.rows)

    def _head_norm(self, x_MHD: torch.Tensor, weight: torch.Tensor, layer: Layer) -> torch.Tensor:
        """Over each head, or over all of them: as wide as its weight."""
        flat = x_MHD.reshape(-1, len(weight)).contiguous()  # of a product of q, k and v together
        normed: torch.Tensor = self.kernels.rms_norm(flat, weight, layer.epsilon)
        return normed.view(x_MHD.shape)

    def _head_norm_backward(
        self, grad_MHD: torch.Tensor, x_MHD: torch.Tensor, weight: torch.Tensor, layer: Layer
    ) -> torch.Tensor:
        flat, x = grad_MHD.reshape(-1, len(weight)), x_MHD.reshape(-1, len(weight))
        grad: torch.Tensor = self.kernels.rms_norm_backward(flat, x, weight, layer.epsilon)
        return grad.view(x_MHD.shape)


def _gated(saved: LayerActivations) -> torch.Tensor:
    """What attention gives, [M, H D], by its gate where it has one."""
    assert saved.attended is not None
    out = saved.attended.out_MHD
    return (out if saved.gate_MHD is None else out * saved.gate_MHD.sigmoid()).flatten(1)
