"""The feed-forward network of one decoder layer, forward and backward."""

import torch

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.lora_linear import LinearInput
from trainer.engine.residual_branch import ResidualBranch
from trainer.engine.weights import Layer, Linear


class FeedForward(ResidualBranch):
    """Both passes, from the middle of a layer's residual stream to its end and back."""

    def forward_stored(self, layer: Layer, saved: LayerActivations, batch: Batch) -> torch.Tensor:
        x = saved.middle_MH
        assert x is not None
        saved.gate_MI, saved.up_MI = self._gate_up(layer, x, saved, batch)
        act = self._activation(layer, saved.gate_MI, saved.up_MI)
        made = self.linear.forward(_down(layer), LinearInput(act, saved, batch))
        if layer.mlp_post_norm is not None:
            saved.mlp_out_MH = made
        return self.joined(layer.mlp_post_norm, made, x, layer)

    def forward_sliced(self, layer: Layer, saved: LayerActivations, batch: Batch) -> torch.Tensor:
        x = saved.middle_MH
        assert x is not None
        out = torch.empty_like(x)
        for rows in slices(len(x), self.plan.mlp_rows):
            saved.first_row = rows.start
            act = self._activation(layer, *self._gate_up(layer, x[rows], saved, batch))
            made = self.linear.forward(_down(layer), LinearInput(act, saved, batch))
            out[rows] = self.joined(layer.mlp_post_norm, made, x[rows], layer)
        return out

    def _activation(self, layer: Layer, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        kernel = self.kernels.swiglu if layer.activation == "silu" else self.kernels.geglu
        act: torch.Tensor = kernel(gate, up)
        return act

    def _activation_backward(
        self, layer: Layer, grad_act: torch.Tensor, gate_up: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of gate and up, which may be written over them."""
        silu = layer.activation == "silu"
        kernel = self.kernels.swiglu_backward if silu else self.kernels.geglu_backward
        grads: tuple[torch.Tensor, torch.Tensor] = kernel(grad_act, *gate_up)
        return grads

    def _gate_up(
        self, layer: Layer, x: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = LinearInput(self.normed(layer.mlp_norm, x, layer), saved, batch)
        width = _down(layer).weight.shape[1]
        gate, up = self.linear.forward_of(layer.gate_up, (width, width), given)
        return gate, up

    def backward(
        self, layer: Layer, grad: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> torch.Tensor:
        """Gradient at the middle of the residual stream."""
        x = saved.middle_MH
        assert x is not None
        saved.middle_MH = None
        if saved.gate_MI is not None and saved.up_MI is not None:
            gate, up = saved.gate_MI, saved.up_MI
            saved.gate_MI = saved.up_MI = None
            return self._rows_backward(layer, grad, x, (gate, up), saved, batch)
        out = torch.empty_like(x)
        for rows in slices(len(x), self.plan.mlp_rows):
            saved.first_row = rows.start
            gate_up = self._gate_up(layer, x[rows], saved, batch)
            out[rows] = self._rows_backward(layer, grad[rows], x[rows], gate_up, saved, batch)
        saved.first_row = 0
        return out

    def _rows_backward(
        self,
        layer: Layer,
        grad: torch.Tensor,
        x: torch.Tensor,
        gate_up: tuple[torch.Tensor, torch.Tensor],
        saved: LayerActivations,
        batch: Batch,
    ) -> torch.Tensor:
        """The same for some rows; `gate_up` are overwritten."""
        made, saved.mlp_out_MH = saved.mlp_out_MH, None
        again, down = layer.mlp_post_norm is not None and made is None, _down(layer)
        act = self._activation(layer, *gate_up) if again or down.lora is not None else None
        given = LinearInput(act, saved, batch)
        if again:
            made = self.linear.forward(down, given)
        grad_made = self.branch_gradient(layer.mlp_post_norm, grad, made, layer)
        grad_act = self.linear.backward(down, grad_made, given)
        del act, given, made, grad_made
        grads = self._activation_backward(layer, grad_act, gate_up)
        del grad_act, gate_up
        adapted = any(linear.lora is not None for linear in layer.gate_up)
        h = self.normed(layer.mlp_norm, x, layer) if adapted else None
        total = self.linear.backward_of(layer.gate_up, grads, LinearInput(h, saved, batch))
        assert total is not None
        return self.norm_backward(layer.mlp_norm, total, x, layer, grad)


def _down(layer: Layer) -> Linear:
    assert layer.down is not None
    return layer.down


def slices(rows: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]
