"""Gated delta rule (Yang et al. 2024) in the place of attention: what Qwen3.5 mixes tokens with.

In chunks of CHUNK tokens of a row, all of them at once but for the states that go from one chunk to
the next. Documents are told apart inside a chunk, so that shapes depend on none of them and the
whole can be a CUDA graph. Its backward pass is autograd's, over this piece alone and computed again
for it, so that nothing of it is kept but what the projections gave.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from trainer.kernels import Kernels
from trainer.kernels.attention import Documents
from trainer.planner.model_shape import CHUNK

EPSILON = 1e-6  # of the length of q and k


@dataclass(frozen=True)
class DeltaNet:
    """The frozen tensors of one mixer: a convolution of W taps over C = 2 K D + V E channels, decay
    and step of each of V heads, and the norm behind it."""

    convolution_CW: torch.Tensor
    log_decay_V: torch.Tensor
    bias_V: torch.Tensor
    norm_E: torch.Tensor
    epsilon: float
    key_heads: int
    key_size: int

    @property
    def key_width(self) -> int:
        return self.key_heads * self.key_size

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the products that it is given: q, k and v in one, gate, step and decay."""
        heads = len(self.log_decay_V)
        values = heads * len(self.norm_E)
        return 2 * self.key_width + values, values, heads, heads


@dataclass(frozen=True)
class DeltaPass:
    """Mixes `rows` of tokens, in which no document of another row goes on."""

    kernels: Kernels
    rows: int

    def mix(
        self, net: DeltaNet, products: Sequence[torch.Tensor], where: Documents
    ) -> torch.Tensor:
        """[M, V E] from products [M, …] of `net.widths`; no document sees another."""
        device = products[0].device
        # A trainer's autocast would halve float32.
        with torch.autocast(device.type, enabled=False), _tensor_cores(device):
            return self._mixed(net, products, where)

    def gradients(
        self, made: torch.Tensor, products: Sequence[torch.Tensor], grad: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Of the products from which `mix` has made this, with autograd switched on."""
        with _tensor_cores(grad.device):
            return torch.autograd.grad(made, list(products), grad)

    def _mixed(
        self, net: DeltaNet, products: Sequence[torch.Tensor], where: Documents
    ) -> torch.Tensor:
        both_MC, gate_MO, step_MV, decay_MV = products
        heads, size = len(net.log_decay_V), len(net.norm_E)
        token = torch.arange(len(both_MC), device=both_MC.device, dtype=where.starts.dtype)
        document = torch.searchsorted(where.starts, token, right=True) - 1
        position = token - where.starts[document]
        convolved: torch.Tensor = _Convolved.apply(  # type: ignore[no-untyped-call]
            both_MC, net.convolution_CW, position, self.kernels
        )
        q, k, v = convolved.split((net.key_width, net.key_width, heads * size), dim=-1)
        q, k = (
            self._in_chunks(self._of_length(length, x, net.key_size))
            for length, x in ((net.key_size**-0.5, q), (1, k))
        )
        decay = -net.log_decay_V.float().exp() * F.softplus(decay_MV.float() + net.bias_V)
        made = gated_delta_rule(
            q,
            k,
            self._in_chunks(v.unflatten(-1, (heads, -1))),
            self._in_chunks(decay),
            self._in_chunks(step_MV.sigmoid()),
            self._in_chunks((document + 1)[:, None])[:, :, 0],
            self.kernels,
        )
        out_MVE = self._in_rows(made, len(both_MC)).to(both_MC.dtype)
        out: torch.Tensor = _Gated.apply(  # type: ignore[no-untyped-call]
            out_MVE.flatten(0, 1), gate_MO.view(-1, size), net, self.kernels
        )
        return out.view(gate_MO.shape)

    def _of_length(self, length: float, x_MC: torch.Tensor, size: int) -> torch.Tensor:
        """Heads [M, K, D] of this length, float32, by the kernel of norms."""
        weight = x_MC.new_full((size,), length * size**-0.5, dtype=torch.float32)
        made: torch.Tensor = _Normed.apply(  # type: ignore[no-untyped-call]
            x_MC.reshape(-1, size), weight, EPSILON / size, self.kernels
        )
        return made.view(len(x_MC), -1, size)

    def _in_chunks(self, x_MV: torch.Tensor) -> torch.Tensor:
        """[N, B, V, CHUNK, …] of N chunks of B rows, float32, with zeros behind each row."""
        x = x_MV.unflatten(0, (self.rows, -1))
        if short := -x.shape[1] % CHUNK:
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, short))
        chunks: torch.Tensor = x.unflatten(1, (-1, CHUNK)).transpose(0, 1).transpose(2, 3)
        return chunks.to(torch.float32, memory_format=torch.contiguous_format).contiguous()

    def _in_rows(self, x_NBVTE: torch.Tensor, tokens: int) -> torch.Tensor:
        """[M, V, E], without what lies behind each row."""
        rows = x_NBVTE.transpose(2, 3).transpose(0, 1).flatten(1, 2)
        return rows[:, : tokens // self.rows].flatten(0, 1)


def gated_delta_rule(
    q_NBKTD: torch.Tensor,
    k_NBKTD: torch.Tensor,
    v_NBVTE: torch.Tensor,
    decay_NBVT: torch.Tensor,
    step_NBVT: torch.Tensor,
    document_NBT: torch.Tensor,
    kernels: Kernels,
) -> torch.Tensor:
    """[N, B, V, T, E] of N chunks of T tokens of B rows, float32. A token is of the document of
    that number, above 0; each head of q and k is that of V / K of v.

    Each head has a state S [D, E]. A token makes it S' = exp(decay) S, then S' + k step (v - k S'),
    and is given q S; where a document begins S is 0. Inside a chunk the steps solve a triangular
    system.
    """
    pairs, heads = k_NBKTD.shape[2], v_NBVTE.shape[2]
    apart = pairs, heads // pairs

    def spread(x_NBKTD: torch.Tensor, weight_NBVT: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = weight_NBVT.unflatten(2, apart)
        weighed = x_NBKTD[:, :, :, None] * weight[..., None]
        return weighed.flatten(2, 3)

    keys, queries = k_NBKTD @ k_NBKTD.mT, q_NBKTD @ k_NBKTD.mT
    system, inside, entered, leaves = _Decayed.apply(  # type: ignore[no-untyped-call]
        keys, queries, step_NBVT, decay_NBVT, document_NBT, kernels
    )
    solved: torch.Tensor = _Inverse.apply(system, kernels)  # type: ignore[no-untyped-call]
    solved = solved * step_NBVT[..., None, :]
    told = spread(k_NBKTD, leaves)
    asking = (solved * entered[..., None, :]).unflatten(2, apart).flatten(3, 4)
    states, new = _States.apply(  # type: ignore[no-untyped-call]
        solved @ v_NBVTE,
        (asking @ k_NBKTD).view_as(told),
        told,
        entered[..., -1:],
    )
    out: torch.Tensor = spread(q_NBKTD, entered) @ states + inside @ new
    return out


class _States(torch.autograd.Function):
    """Of N chunks in turn what each takes in and the state before it: `new` = `values` - `keys` S,
    and then S is `kept` S + `told`' `new`."""

    @staticmethod
    def forward(
        ctx: Any,
        values_NBVTE: torch.Tensor,
        keys_NBVTD: torch.Tensor,
        told_NBVTD: torch.Tensor,
        kept_NBV1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values, keys, told = (x.flatten(1, 2) for x in (values_NBVTE, keys_NBVTD, told_NBVTD))
        kept = kept_NBV1.flatten(1)[..., None, None]
        chunks, heads, _, size = values.shape
        states = values.new_empty(chunks, heads, keys.shape[-1], size)
        states[0] = 0
        new = torch.empty_like(values)
        for n in range(chunks):
            torch.baddbmm(values[n], keys[n], states[n], alpha=-1, out=new[n])
            if n + 1 < chunks:
                torch.baddbmm(states[n] * kept[n], told[n].mT, new[n], out=states[n + 1])
        ctx.save_for_backward(keys, told, kept, states, new)
        ctx.shapes = [x.shape for x in (values_NBVTE, keys_NBVTD, told_NBVTD, kept_NBV1)]
        outer = values_NBVTE.shape[1:3]
        return states.unflatten(1, outer), new.unflatten(1, outer)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        keys, told, kept, states, new = ctx.saved_tensors
        of_states, of_new = (gradient.flatten(1, 2) for gradient in gradients)
        behind = torch.empty_like(states)  # of the state that each chunk leaves
        behind[-1] = 0
        grad = torch.empty_like(new)
        for n in reversed(range(len(new))):
            torch.baddbmm(of_new[n], told[n], behind[n], out=grad[n])
            if n:
                state = torch.addcmul(of_states[n], behind[n], kept[n])
                torch.baddbmm(state, keys[n].mT, grad[n], alpha=-1, out=behind[n - 1])
        found = (
            grad,
            (grad @ states.mT).neg_(),
            new @ behind.mT,
            (states * behind).sum((-2, -1)),
        )
        return tuple(x.view(shape) for x, shape in zip(found, ctx.shapes, strict=True))


class _Decayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[torch.Tensor, ...]:
        *tensors, ctx.kernels = given
        ctx.save_for_backward(*tensors)
        made: tuple[torch.Tensor, ...] = ctx.kernels.delta_decays(*tensors)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        return *ctx.kernels.delta_decays_backward(gradients, *ctx.saved_tensors), None, None


class _Inverse(torch.autograd.Function):
    """(I + L)^-1 of what is below the diagonal of a system."""

    @staticmethod
    def forward(ctx: Any, system: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        made: torch.Tensor = kernels.triangular_inverse(system)
        ctx.save_for_backward(made)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (made,), (grad,) = ctx.saved_tensors, gradients
        return (made.mT @ grad @ made.mT).neg_().tril_(-1), None


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_MC: torch.Tensor,
        taps_CW: torch.Tensor,
        position_M: torch.Tensor,
        kernels: Kernels,
    ) -> torch.Tensor:
        ctx.save_for_backward(x_MC, taps_CW, position_M)
        ctx.kernels = kernels
        made: torch.Tensor = kernels.convolution(x_MC, taps_CW, position_M)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        grad = gradients[0].contiguous()
        return ctx.kernels.convolution_backward(grad, *ctx.saved_tensors), None, None, None


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_XD: torch.Tensor, weight_D: torch.Tensor, epsilon: float, kernels: Kernels
    ) -> torch.Tensor:
        ctx.save_for_backward(x_XD, weight_D)
        ctx.epsilon, ctx.kernels = epsilon, kernels
        made: torch.Tensor = kernels.rms_norm(x_XD, weight_D, epsilon, torch.float32)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        grad = gradients[0].contiguous()
        made = ctx.kernels.rms_norm_backward(grad, *ctx.saved_tensors, ctx.epsilon)
        return made, None, None, None


class _Gated(torch.autograd.Function):
    """The norm of each head's values [M V, E], by the SiLU of its gate."""

    @staticmethod
    def forward(
        ctx: Any, x_XE: torch.Tensor, gate_XE: torch.Tensor, net: DeltaNet, kernels: Kernels
    ) -> torch.Tensor:
        x, gate = x_XE.contiguous(), gate_XE.contiguous()
        ctx.save_for_backward(x, gate)
        ctx.net, ctx.kernels = net, kernels
        made: torch.Tensor = kernels.swiglu(gate, kernels.rms_norm(x, net.norm_E, net.epsilon))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        (x, gate), kernels, net = ctx.saved_tensors, ctx.kernels, ctx.net
        normed = kernels.rms_norm(x, net.norm_E, net.epsilon)
        grad = gradients[0].contiguous()
        grad_gate, grad_normed = kernels.swiglu_backward(grad, gate.clone(), normed)
        return (
            kernels.rms_norm_backward(grad_normed, x, net.norm_E, net.epsilon),
            grad_gate,
            None,
            None,
        )


@contextmanager
def _tensor_cores(device: torch.device) -> Iterator[None]:
    """Products of float32 in TF32 on a GPU that has it: it rounds as fp16 does, and what is
    multiplied came in 16 bits."""
    before = torch.backends.cuda.matmul.allow_tf32
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
