"""A mixture of experts in the place of a feed-forward network: forward and backward.

The router and the experts are frozen and have no adapter, so only the gradient of what they are
given is needed; what reaches it through the weights of a token's experts is part of that.
"""

from dataclasses import dataclass

import torch

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.feed_forward import FeedForward, slices
from trainer.engine.weights import Layer, Mixture
from trainer.models.nf4_experts import multiplied


@dataclass(frozen=True)
class Routed:
    """Where tokens go: S = M K rows, sorted by expert. `token_S` is whose a row is, `place_S` where
    it stands among the rows of all tokens; `weight_MK` what of its experts a token takes."""

    token_S: torch.Tensor
    place_S: torch.Tensor
    weight_MK: torch.Tensor
    chosen_MK: torch.Tensor
    counts: list[int] | torch.Tensor  # rows of each expert, or where they end

    def by_token(self, rows_SH: torch.Tensor) -> torch.Tensor:
        """[M, K, …] of rows that are sorted by expert."""
        back = torch.empty_like(self.place_S)
        back[self.place_S] = torch.arange(len(back), device=back.device)
        return rows_SH[back].view(*self.weight_MK.shape, *rows_SH.shape[1:])

    def weight_S(self) -> torch.Tensor:
        return self.weight_MK.flatten()[self.place_S]


class MixturePass(FeedForward):
    """Both passes, from the middle of a layer's residual stream to its end and back."""

    def forward_stored(self, layer: Layer, saved: LayerActivations, batch: Batch) -> torch.Tensor:
        x = saved.middle_MH
        assert x is not None
        out, saved.routed, saved.gate_MI, saved.up_MI = self._forward(layer, x)
        return out

    def forward_sliced(self, layer: Layer, saved: LayerActivations, batch: Batch) -> torch.Tensor:
        x = saved.middle_MH
        assert x is not None
        out = torch.empty_like(x)
        for rows in slices(len(x), self.plan.mlp_rows):
            out[rows] = self._forward(layer, x[rows])[0]
        return out

    def backward(
        self, layer: Layer, grad: torch.Tensor, saved: LayerActivations, batch: Batch
    ) -> torch.Tensor:
        x, routed = saved.middle_MH, saved.routed
        assert x is not None
        saved.middle_MH = saved.routed = None
        if routed is not None and saved.gate_MI is not None and saved.up_MI is not None:
            gate_up = saved.gate_MI, saved.up_MI
            saved.gate_MI = saved.up_MI = None
            return self._backward(layer, grad, x, routed, gate_up)
        out = torch.empty_like(x)
        for rows in slices(len(x), self.plan.mlp_rows):
            h = self.normed(layer.mlp_norm, x[rows], layer)
            routed = route(_mixture(layer), h, waits=not self.plan.graph)
            gate_up = self._experts_gate_up(layer, h, routed)
            del h
            out[rows] = self._backward(layer, grad[rows], x[rows], routed, gate_up)
        return out

    def _forward(
        self, layer: Layer, x: torch.Tensor
    ) -> tuple[torch.Tensor, Routed, torch.Tensor, torch.Tensor]:
        h = self.normed(layer.mlp_norm, x, layer)
        routed = route(_mixture(layer), h, waits=not self.plan.graph)
        gate, up = self._experts_gate_up(layer, h, routed)
        del h
        act = self._activation(layer, gate, up)
        made = multiplied(act, _mixture(layer).down, routed.counts, by_columns=True)
        del act
        weighted = routed.by_token(made.mul_(routed.weight_S()[:, None]))
        return self.joined(layer.mlp_post_norm, weighted.sum(1), x, layer), routed, gate, up

    def _experts_gate_up(
        self, layer: Layer, h: torch.Tensor, routed: Routed
    ) -> tuple[torch.Tensor, torch.Tensor]:
        both = multiplied(
            h[routed.token_S], _mixture(layer).gate_up, routed.counts, by_columns=True
        )
        gate, up = (part.contiguous() for part in both.chunk(2, dim=1))
        return gate, up

    def _backward(
        self,
        layer: Layer,
        grad: torch.Tensor,
        x: torch.Tensor,
        routed: Routed,
        gate_up: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Gradient at the middle of the residual stream; `gate_up` are overwritten."""
        mixture = _mixture(layer)
        act = self._activation(layer, *gate_up)
        grad_act = multiplied(grad[routed.token_S], mixture.down, routed.counts, by_columns=False)
        # <grad, W act> is <W' grad, act>: what the experts gave is not needed again.
        grad_weight = routed.by_token((grad_act.float() * act.float()).sum(1))
        del act
        grad_act.mul_(routed.weight_S()[:, None])
        both = torch.cat(self._activation_backward(layer, grad_act, gate_up), 1)
        del grad_act, gate_up
        grad_h = multiplied(both, mixture.gate_up, routed.counts, by_columns=False)
        del both
        total = routed.by_token(grad_h).sum(1)
        h = self.normed(layer.mlp_norm, x, layer)
        total += router_gradient(mixture, h, routed, grad_weight)
        return self.norm_backward(layer.mlp_norm, total, x, layer, grad)


def route(mixture: Mixture, h_MH: torch.Tensor, *, waits: bool = True) -> Routed:
    """As transformers does it: the likeliest experts, by a softmax over all of them in float32.
    With `waits` the CPU is told how many rows each has."""
    likely = torch.softmax((h_MH @ mixture.router.t()).float(), -1)
    weight_MK, chosen_MK = likely.topk(mixture.experts_of_a_token, -1)
    if mixture.normalises:
        weight_MK = weight_MK / weight_MK.sum(-1, keepdim=True)
    expert_S, place_S = chosen_MK.flatten().sort(stable=True)
    experts = torch.arange(len(mixture.router), device=expert_S.device)
    ends = torch.searchsorted(expert_S, experts, right=True)
    counts = ends.diff(prepend=ends.new_zeros(1)).tolist() if waits else ends.int()
    token_S = place_S // mixture.experts_of_a_token
    return Routed(token_S, place_S, weight_MK.to(h_MH.dtype), chosen_MK, counts)


def router_gradient(
    mixture: Mixture, h_MH: torch.Tensor, routed: Routed, grad_MK: torch.Tensor
) -> torch.Tensor:
    """Gradient of h [M, H] from that of the weights of a token's experts, float32."""
    likely = torch.softmax((h_MH @ mixture.router.t()).float(), -1)
    if mixture.normalises:
        taken = likely.gather(1, routed.chosen_MK)
        total = taken.sum(-1, keepdim=True)
        grad_MK = (grad_MK - (grad_MK * taken / total).sum(-1, keepdim=True)) / total
    grad_likely = torch.zeros_like(likely).scatter_(1, routed.chosen_MK, grad_MK)
    grad_logits = likely * (grad_likely - (grad_likely * likely).sum(-1, keepdim=True))
    return grad_logits.to(h_MH.dtype) @ mixture.router


def _mixture(layer: Layer) -> Mixture:
    assert layer.mixture is not None
    return layer.mixture
