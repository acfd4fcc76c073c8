"""Forward and backward of a Llama-like decoder over a frozen NF4 base, written out by hand.

The stock path (transformers, peft, bitsandbytes under autograd) keeps what autograd happens to
need, computes whole layers twice, and starts thousands of small kernels. A frozen base needs no
weight gradients, so much less has to be kept: of a layer its input, q, k, v, the attention's
output, the middle of the residual stream, gate and up. Norms, rotations and SwiGLU are computed
again, products are not. Layers that a `Plan` does not keep save their input alone, on the GPU or in
pinned host memory, and are computed again without their last product.

Shapes: M tokens of all rows in one line, H hidden, I intermediate, D head size, r adapter rank.
Weights are [out, in] as in torch.nn.Linear.
"""

import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trainer.kernels import Kernels, choose, choose_attention
from trainer.kernels._triton import next_power_of_2
from trainer.kernels.attention import Attended, Attention, Documents
from trainer.kernels.cross_entropy import IGNORED
from trainer.kernels.dequantise import Nf4
from trainer.kernels.dropout import Mask, Seed, draw
from trainer.planner import Plan

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def why_not(config: Any) -> str | None:
    """Why this engine cannot train a model of this config; None where it can."""
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not one of {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"its position embedding is of type {rope}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "it attends in a sliding window"
    return None


@dataclass
class Linear:
    """A frozen linear layer and, where it has one, its adapter: W + scale B A."""

    weight: Nf4
    bias: torch.Tensor | None
    lora_a: torch.nn.Parameter | None = None  # [r, in]
    lora_b: torch.nn.Parameter | None = None  # [out, r]
    scale: float = 0.0
    dropout: float = 0.0
    salt: int = 0
    unpacked: torch.Tensor | None = None  # the matrix itself, where memory is no question

    @classmethod
    def of(cls, module: Any, salt: int) -> "Linear":
        """From bitsandbytes' Linear4bit, bare or inside peft's. ValueError for anything else."""
        base = getattr(module, "base_layer", module)
        if not hasattr(getattr(base, "weight", None), "quant_state"):
            raise ValueError(f"{type(base).__name__} is no 4-bit layer")
        linear = cls(Nf4.of(base.weight), base.bias)
        if base is not module:
            (name,) = module.active_adapters
            linear.lora_a = module.lora_A[name].weight
            linear.lora_b = module.lora_B[name].weight
            linear.scale = module.scaling[name]
            linear.dropout = getattr(module.lora_dropout[name], "p", 0.0)
            linear.salt = salt
        return linear

    def trained(self) -> list[torch.nn.Parameter]:
        return [p for p in (self.lora_a, self.lora_b) if p is not None]


@dataclass
class Layer:
    """One decoder layer; Qwen3 alone has norms on the heads of q and k."""

    attention_norm: torch.Tensor
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    mlp_norm: torch.Tensor
    gate: Linear
    up: Linear
    down: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    epsilon: float
    head_size: int

    def linears(self) -> tuple[Linear, ...]:
        return self.q, self.k, self.v, self.o, self.gate, self.up, self.down


def _layers(model: Any) -> Iterator[Layer]:
    decoder = model.get_base_model().model
    for number, module in enumerate(decoder.layers):
        attention, mlp = module.self_attn, module.mlp
        modules = (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            mlp.gate_proj, mlp.up_proj, mlp.down_proj,
        )  # fmt: skip
        q, k, v, o, gate, up, down = (
            Linear.of(m, salt=number * len(modules) + i) for i, m in enumerate(modules)
        )
        q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        yield Layer(
            attention_norm=module.input_layernorm.weight,
            q=q, k=k, v=v, o=o,
            mlp_norm=module.post_attention_layernorm.weight,
            gate=gate, up=up, down=down,
            q_norm=None if q_norm is None else q_norm.weight,
            k_norm=None if k_norm is None else k_norm.weight,
            epsilon=module.input_layernorm.variance_epsilon,
            head_size=attention.head_dim,
        )  # fmt: skip


@dataclass
class Batch:
    """What every layer of one micro-batch shares."""

    where: Documents
    cos_MD: torch.Tensor
    sin_MD: torch.Tensor
    random: torch.Tensor  # int64 [1]: decides this micro-batch's dropout on a GPU
    gradients: dict[int, torch.Tensor] = field(default_factory=dict)

    def add(self, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> None:
        former = self.gradients.get(id(parameter))
        self.gradients[id(parameter)] = gradient if former is None else former.add_(gradient)


@dataclass
class Saved:
    """What the forward pass of one layer leaves to its backward pass."""

    x_MH: torch.Tensor | None
    attended: Attended | None = None
    q_MHD: torch.Tensor | None = None  # as attention saw it, rotated
    k_MKD: torch.Tensor | None = None
    v_MKD: torch.Tensor | None = None
    unrotated: tuple[torch.Tensor, torch.Tensor] | None = None  # before Qwen3's norms
    middle_MH: torch.Tensor | None = None
    gate_MI: torch.Tensor | None = None
    up_MI: torch.Tensor | None = None
    masks: dict[int, torch.Tensor] = field(default_factory=dict)  # those that torch has drawn
    first_row: int = 0  # of the part that goes through the feed-forward network
    lowered: dict[int, torch.Tensor] = field(default_factory=dict)  # A x of each adapter


@dataclass
class Passed:
    """What the forward pass leaves to the backward pass."""

    batch: Batch
    loss: torch.Tensor
    saved: list[Saved]
    x_MH: torch.Tensor  # input of the last norm
    grad_MH: torch.Tensor  # gradient at its output, of the sum of losses


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
        plan: Plan,
        row_tokens: int,
        kernels: Kernels | None = None,
        attention: Attention | None = None,
    ) -> None:
        """`model` is a PeftModel for whose config `why_not` gives None; rows have `row_tokens`."""
        base = model.get_base_model()
        self.layers = list(_layers(model))
        self.dtype = dtype
        self._row = row_tokens
        self._head = base.get_output_embeddings().weight
        self._embedding = base.get_input_embeddings().weight
        self._norm = base.model.norm
        self._rotary = base.model.rotary_emb
        self.device = self._head.device
        self._k = kernels or choose(self.device.type)
        self._attention = attention or choose_attention(self.device, row_tokens)
        self._linears = [linear for layer in self.layers for linear in layer.linears()]
        self._adapter = [p for linear in self._linears for p in linear.trained()]
        self._joined = [p for p in self._adapter if p.numel() >= 4096 and p.numel() % 256 == 0]
        self._apart = [p for p in self._adapter if all(p is not other for other in self._joined)]
        self.parameters = [*self._join(), *self._apart]
        self._half: dict[int, torch.Tensor] = {}
        self._widest = max(math.prod(linear.weight.shape) for linear in self._linears)
        self._buffer: torch.Tensor | None = None
        self._host: _Host | None = None
        self._graphs: dict[tuple[int, ...], _Graphs] = {}
        self._pool: Any = None  # memory of all graphs: one of them runs at a time
        self.change(plan)

    def change(self, plan: Plan) -> None:
        """Go on with another plan; what is computed stays the same."""
        self.close()
        self.plan = plan
        if plan.offload:
            self._host = _Host(self.device)
        if plan.host_ends:
            for end in (self._embedding, self._head):
                if end.device.type != "cpu":  # once, where both are the same
                    end.data = end.data.cpu().pin_memory()
        try:
            self._unpack(plan.unpacked_layers)
        except torch.OutOfMemoryError:  # it is there for speed alone
            self.change(replace(plan, unpacked_layers=0))

    def _unpack(self, layers: int) -> None:
        for layer in self.layers[:layers]:
            for linear in layer.linears():
                like = torch.empty(linear.weight.shape, dtype=self.dtype, device=self.device)
                linear.unpacked = self._k.dequantise(linear.weight, like)

    def close(self) -> None:
        """Leave the model as it was, and free all memory but the adapter's."""
        for end in (self._embedding, self._head):
            end.data = end.data.to(self.device)
        self._graphs.clear()
        self._host = self._buffer = self._pool = None
        for linear in self._linears:
            linear.unpacked = None
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def loss_sum(
        self,
        input_ids_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        position_ids_BT: torch.Tensor,
        where: Documents,
    ) -> torch.Tensor:
        """Sum of the cross-entropy of all labels that are not -100, float32 scalar.

        The gradient is computed by `backward()` of the result and accumulates as usual.
        """
        inputs = input_ids_BT, labels_BT, position_ids_BT, where
        loss: torch.Tensor = _Loss.apply(self, inputs, *self.parameters)  # type: ignore[no-untyped-call]
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
        rates = [linear.dropout for linear in self._linears]
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            batch = self._batch(position_ids_BT, where)
        try:
            for linear in self._linears:
                linear.dropout = 0.0
            x = self._k.embedding(input_ids_BT.flatten(), self._embedding.data, self.dtype)
            for layer in self.layers:
                x, _ = self._layer(layer, x, batch, keep=False)
        finally:
            for linear, rate in zip(self._linears, rates, strict=True):
                linear.dropout = rate
        return self._head_loss(x, _next_tokens(labels_BT))[0]

    def _join(self) -> list[torch.nn.Parameter]:
        """The tensors of `_joined` as views of one parameter."""
        if not self._joined:
            return []
        one = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in self._joined]))
        parts = one.data.split([p.numel() for p in self._joined])
        for parameter, part in zip(self._joined, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        return [one]

    # -- one micro-batch ------------------------------------------------------------------

    def _forward(
        self,
        input_ids_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        position_ids_BT: torch.Tensor,
        where: Documents,
    ) -> Passed:
        batch = self._batch(position_ids_BT, where)
        x = self._k.embedding(input_ids_BT.flatten(), self._embedding.data, self.dtype)
        saved = []
        first_kept = len(self.layers) - self.plan.kept_layers
        for number, layer in enumerate(self.layers):
            out, state = self._layer(layer, x, batch, keep=number >= first_kept)
            if self._host is not None and number < first_kept:
                self._host.store(number, state)
            saved.append(state)
            x = out
        loss, grad = self._head_loss(x, _next_tokens(labels_BT))
        return Passed(batch, loss, saved, x, grad)

    def _backward(self, passed: Passed, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of `parameters`, float32. What was passed is used up."""
        batch, saved, grad, x = passed.batch, passed.saved, passed.grad_MH, passed.x_MH
        for rows in _slices(len(grad), self.plan.logit_rows):
            # In float32: the loss scale alone may be more than 16 bits hold.
            grad[rows] = grad[rows].float().mul_(grad_loss).to(grad.dtype)
        grad = self._k.rms_norm_backward(grad, x, self._norm.weight, self._norm.variance_epsilon)
        passed.grad_MH = passed.x_MH = x = torch.empty(0)
        for number in range(len(self.layers) - 1, -1, -1):
            if self._host is not None:
                self._host.fetch(number, saved)
            grad = self._layer_backward(number, grad, saved[number], batch)
            saved[number] = Saved(None)
        found = [[batch.gradients[id(p)] for p in group] for group in (self._joined, self._apart)]
        joined = [torch.cat([g.flatten() for g in found[0]])] if found[0] else []
        return [*joined, *found[1]]

    def _batch(self, position_ids_BT: torch.Tensor, where: Documents) -> Batch:
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self._rotary(like, position_ids_BT.reshape(1, -1))
        draws = self.device.type == "cpu" and self.plan.kept_layers == len(self.layers)
        random = torch.zeros(1) if draws else torch.randint(2**31, (1,), device=self.device)
        halves = [torch.empty_like(p, dtype=self.dtype) for p in self._adapter]
        torch._foreach_copy_(halves, [p.detach() for p in self._adapter])
        self._half = {id(p): half for p, half in zip(self._adapter, halves, strict=True)}
        return Batch(where, cos[0], sin[0], random)

    def _head_loss(
        self, x_MH: torch.Tensor, target_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss sum, and its gradient at the normed hidden state [M, H]; logits never whole."""
        if self.device.type == "cpu":  # where it costs nothing to know which rows are trained
            trained = target_M.ne(IGNORED).nonzero().flatten()
            loss, grad = self._rows_loss(x_MH[trained], target_M[trained])
            return loss, torch.zeros_like(x_MH).index_copy_(0, trained, grad)
        return self._rows_loss(x_MH, target_M)

    def _rows_loss(
        self, x_MH: torch.Tensor, target_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses, grad_MH = [torch.zeros((), device=self.device)], torch.empty_like(x_MH)
        head = self._head.to(self.device, non_blocking=True)
        for rows in _slices(len(x_MH), self.plan.logit_rows):
            normed = self._k.rms_norm(x_MH[rows], self._norm.weight, self._norm.variance_epsilon)
            logits = normed @ head.t()
            loss, grad_logits = self._k.cross_entropy(logits, target_M[rows])
            torch.mm(grad_logits, head, out=grad_MH[rows])
            losses.append(loss.sum())
        return torch.stack(losses).sum(), grad_MH

    # -- one layer ------------------------------------------------------------------------

    def _layer(
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

    def _attend(self, layer: Layer, saved: Saved, batch: Batch) -> None:
        """From the layer's input to the middle of its residual stream, all of it in `saved`."""
        x = saved.x_MH
        assert x is not None
        h = self._k.rms_norm(x, layer.attention_norm, layer.epsilon)
        q, k, v = (
            self._linear(n, h, saved, batch).view(len(x), -1, layer.head_size)
            for n in (layer.q, layer.k, layer.v)
        )
        del h
        if layer.q_norm is not None and layer.k_norm is not None:
            saved.unrotated = q, k
            q, k = (self._head_norm(n, w, layer) for n, w in ((q, layer.q_norm), (k, layer.k_norm)))
        saved.q_MHD, saved.k_MKD, saved.v_MKD = (
            self._k.rope(q, batch.cos_MD, batch.sin_MD),
            self._k.rope(k, batch.cos_MD, batch.sin_MD),
            v,
        )
        if saved.attended is None:
            saved.attended = self._attention.forward(q, k, v, batch.where)
        attended = saved.attended.out_MHD.reshape(len(x), -1)
        saved.middle_MH = self._linear(layer.o, attended, saved, batch).add_(x)

    def _head_norm(self, x_MHD: torch.Tensor, weight: torch.Tensor, layer: Layer) -> torch.Tensor:
        flat = x_MHD.reshape(-1, layer.head_size)
        normed: torch.Tensor = self._k.rms_norm(flat, weight, layer.epsilon)
        return normed.view(x_MHD.shape)

    def _mlp(
        self, layer: Layer, saved: Saved, batch: Batch, *, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        x = saved.middle_MH
        assert x is not None
        out = torch.empty_like(x)
        if keep:
            gate, up, act = self._gate_up(layer, x, saved, batch)
            return self._linear(layer.down, act, saved, batch).add_(x), gate, up
        for part in _slices(len(x), self.plan.mlp_rows):
            saved.first_row = part.start
            _, _, act = self._gate_up(layer, x[part], saved, batch)
            torch.add(self._linear(layer.down, act, saved, batch), x[part], out=out[part])
        return out, None, None

    def _gate_up(
        self, layer: Layer, x: torch.Tensor, saved: Saved, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h = self._k.rms_norm(x, layer.mlp_norm, layer.epsilon)
        gate = self._linear(layer.gate, h, saved, batch)
        up = self._linear(layer.up, h, saved, batch)
        return gate, up, self._k.swiglu(gate, up)

    def _layer_backward(
        self, number: int, grad: torch.Tensor, saved: Saved, batch: Batch
    ) -> torch.Tensor:
        """Gradient of the layer's input; below the first layer there is nobody to use it."""
        layer, x = self.layers[number], saved.x_MH
        assert x is not None
        if saved.middle_MH is None:
            self._attend(layer, saved, batch)
        grad = self._mlp_backward(layer, grad, saved, batch)
        attended = saved.attended
        assert attended is not None and saved.q_MHD is not None
        assert saved.k_MKD is not None and saved.v_MKD is not None
        out = attended.out_MHD.reshape(len(x), -1)
        grad_out = self._linear_backward(layer.o, grad, out, saved, batch)
        grads = self._attention.backward(
            grad_out.view(attended.out_MHD.shape),
            saved.q_MHD, saved.k_MKD, saved.v_MKD, attended, batch.where,
        )  # fmt: skip
        del grad_out, out, attended
        saved.attended = saved.q_MHD = saved.k_MKD = saved.v_MKD = None
        grad_q, grad_k, grad_v = grads
        del grads
        grad_q = self._k.rope(grad_q.contiguous(), batch.cos_MD, batch.sin_MD, back=True)
        grad_k = self._k.rope(grad_k.contiguous(), batch.cos_MD, batch.sin_MD, back=True)
        if saved.unrotated is not None:
            assert layer.q_norm is not None and layer.k_norm is not None
            q, k = saved.unrotated
            grad_q = self._head_norm_backward(grad_q, q, layer.q_norm, layer)
            grad_k = self._head_norm_backward(grad_k, k, layer.k_norm, layer)
        h = self._k.rms_norm(x, layer.attention_norm, layer.epsilon)
        total = None
        for linear, grad_y in ((layer.q, grad_q), (layer.k, grad_k), (layer.v, grad_v)):
            flat = grad_y.reshape(len(x), -1)
            if number == 0:
                self._adapter_backward(linear, flat, h, saved, batch)
            else:
                total = self._linear_backward(linear, flat, h, saved, batch, into=total)
        if total is None:
            return grad
        out_x: torch.Tensor = self._k.rms_norm_backward(
            total, x, layer.attention_norm, layer.epsilon, grad
        )
        return out_x

    def _head_norm_backward(
        self, grad_MHD: torch.Tensor, x_MHD: torch.Tensor, weight: torch.Tensor, layer: Layer
    ) -> torch.Tensor:
        flat, x = grad_MHD.reshape(-1, layer.head_size), x_MHD.reshape(-1, layer.head_size)
        grad: torch.Tensor = self._k.rms_norm_backward(flat, x, weight, layer.epsilon)
        return grad.view(x_MHD.shape)

    def _mlp_backward(
        self, layer: Layer, grad: torch.Tensor, saved: Saved, batch: Batch
    ) -> torch.Tensor:
        x = saved.middle_MH
        assert x is not None
        saved.middle_MH = None
        if saved.gate_MI is not None and saved.up_MI is not None:
            gate, up = saved.gate_MI, saved.up_MI
            saved.gate_MI = saved.up_MI = None
            return self._mlp_part_backward(layer, grad, x, gate, up, saved, batch)
        out = torch.empty_like(x)
        for part in _slices(len(x), self.plan.mlp_rows):
            saved.first_row = part.start
            h = self._k.rms_norm(x[part], layer.mlp_norm, layer.epsilon)
            gate = self._linear(layer.gate, h, saved, batch)
            up = self._linear(layer.up, h, saved, batch)
            del h
            out[part] = self._mlp_part_backward(layer, grad[part], x[part], gate, up, saved, batch)
        saved.first_row = 0
        return out

    def _mlp_part_backward(
        self,
        layer: Layer,
        grad: torch.Tensor,
        x: torch.Tensor,
        gate: torch.Tensor,
        up: torch.Tensor,
        saved: Saved,
        batch: Batch,
    ) -> torch.Tensor:
        """Gradient at the middle of the residual stream; `gate` and `up` are overwritten."""
        act = self._k.swiglu(gate, up) if layer.down.lora_a is not None else None
        grad_act = self._linear_backward(layer.down, grad, act, saved, batch)
        del act
        grad_gate, grad_up = self._k.swiglu_backward(grad_act, gate, up)
        del grad_act, gate, up
        adapted = layer.gate.lora_a is not None or layer.up.lora_a is not None
        h = self._k.rms_norm(x, layer.mlp_norm, layer.epsilon) if adapted else None
        total = self._linear_backward(layer.gate, grad_gate, h, saved, batch)
        del grad_gate
        total = self._linear_backward(layer.up, grad_up, h, saved, batch, into=total)
        out_x: torch.Tensor = self._k.rms_norm_backward(
            total, x, layer.mlp_norm, layer.epsilon, grad
        )
        return out_x

    # -- one linear layer -----------------------------------------------------------------

    def _matrix(self, linear: Linear) -> torch.Tensor:
        """W [out, in], in a buffer that the next call overwrites."""
        if linear.unpacked is not None:
            return linear.unpacked
        rows, columns = linear.weight.shape
        if self._buffer is None:
            self._buffer = torch.empty(self._widest, dtype=self.dtype, device=self.device)
        out = self._buffer[: rows * columns].view(rows, columns)
        matrix: torch.Tensor = self._k.dequantise(linear.weight, out)
        return matrix

    def _linear(self, linear: Linear, x: torch.Tensor, saved: Saved, batch: Batch) -> torch.Tensor:
        """y [M, out] of x [M, in]."""
        weight = self._matrix(linear)
        y = x @ weight.t() if linear.bias is None else torch.addmm(linear.bias, x, weight.t())
        if linear.lora_a is not None and linear.lora_b is not None:
            dropped = self._drop(linear, x, saved, batch)
            lowered = dropped @ self._half[id(linear.lora_a)].t()
            y.addmm_(lowered, self._half[id(linear.lora_b)].t(), alpha=linear.scale)
            saved.lowered[linear.salt] = lowered
        return y

    def _linear_backward(
        self,
        linear: Linear,
        grad: torch.Tensor,
        x: torch.Tensor | None,
        saved: Saved,
        batch: Batch,
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gradient of x [M, in], added to `into` where given; `x` is needed by an adapter only."""
        weight = self._matrix(linear)
        out = grad @ weight if into is None else into.addmm_(grad, weight)
        grad_low = self._adapter_backward(linear, grad, x, saved, batch)
        if grad_low is None:
            return out
        a = self._half[id(linear.lora_a)]
        if not linear.dropout:
            return out.addmm_(grad_low, a)
        assert x is not None
        mask = self._mask(linear, x, saved, batch)
        added: torch.Tensor = self._k.dropout_add(out, grad_low @ a, mask, linear.dropout)
        return added

    def _adapter_backward(
        self,
        linear: Linear,
        grad: torch.Tensor,
        x: torch.Tensor | None,
        saved: Saved,
        batch: Batch,
    ) -> torch.Tensor | None:
        """Adds the gradients of A and B to the batch's; returns the gradient of A x [M, r]."""
        if linear.lora_a is None or linear.lora_b is None:
            return None
        assert x is not None
        a, b = self._half[id(linear.lora_a)], self._half[id(linear.lora_b)]
        grad_low = (grad @ b).mul_(linear.scale)
        dropped = self._drop(linear, x, saved, batch)
        lowered = saved.lowered.pop(linear.salt, None)
        if lowered is None:  # a recomputed layer leaves its last product out
            lowered = dropped @ a.t()
        batch.add(linear.lora_b, _wide_mm(grad.t(), lowered).mul_(linear.scale))
        batch.add(linear.lora_a, _wide_mm(grad_low.t(), dropped))
        return grad_low

    def _drop(self, linear: Linear, x: torch.Tensor, saved: Saved, batch: Batch) -> torch.Tensor:
        if not linear.dropout:
            return x
        mask = self._mask(linear, x, saved, batch)
        dropped: torch.Tensor = self._k.dropout(x, mask, linear.dropout)
        return dropped

    def _mask(self, linear: Linear, x: torch.Tensor, saved: Saved, batch: Batch) -> Mask:
        if self.device.type != "cpu" or self.plan.kept_layers < len(self.layers):
            return Seed(batch.random, linear.salt, saved.first_row * x.shape[1])
        if linear.salt not in saved.masks:
            saved.masks[linear.salt] = draw(x, linear.dropout)
        return saved.masks[linear.salt]


class _Loss(torch.autograd.Function):
    """The whole decoder as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, engine: Engine, inputs: Any, *parameters: Any) -> torch.Tensor:
        if engine.plan.graph:
            ctx.graphs = _Graphs.of(engine, inputs)
            replayed: torch.Tensor = ctx.graphs.forward(inputs)
            return replayed
        ctx.engine, ctx.passed = engine, engine._forward(*inputs)
        loss: torch.Tensor = ctx.passed.loss
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> Any:
        if hasattr(ctx, "graphs"):
            return None, None, *ctx.graphs.backward(grad_loss)
        passed, ctx.passed = ctx.passed, None
        return None, None, *ctx.engine._backward(passed, grad_loss)


class _Graphs:
    """Both passes of one shape of micro-batch as CUDA graphs, in memory that all graphs share."""

    def __init__(self, engine: Engine, rows: int, documents: int) -> None:
        shape = rows, engine._row
        self._inputs = [torch.zeros(shape, dtype=torch.int64, device=engine.device) for _ in "123"]
        starts = torch.full((documents + 1,), rows * engine._row, dtype=torch.int32)
        starts[:rows] = torch.arange(rows) * engine._row
        self._where = Documents(starts.to(engine.device), engine._row)
        self._grad_loss = torch.ones((), device=engine.device)
        inputs: Any = *self._inputs, self._where
        aside = torch.cuda.Stream(engine.device)
        aside.wait_stream(torch.cuda.current_stream())
        random = torch.cuda.get_rng_state(engine.device)
        with torch.cuda.stream(aside):  # compiles and allocates what a capture must not
            engine._backward(engine._forward(*inputs), self._grad_loss)
        torch.cuda.current_stream().wait_stream(aside)
        # A resumed run captures again, and its dropout has to go on where it was.
        torch.cuda.set_rng_state(random, engine.device)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        engine._pool = engine._pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(self._forward, pool=engine._pool):
            passed = engine._forward(*inputs)
        self._loss = passed.loss
        with torch.cuda.graph(self._backward, pool=engine._pool):
            self._gradients = engine._backward(passed, self._grad_loss)

    @classmethod
    def of(cls, engine: Engine, inputs: Any) -> "_Graphs":
        """The graphs that take `inputs`: for as many documents, rounded up to a power of two."""
        rows, documents = len(inputs[0]), inputs[3].starts.numel() - 1
        key = rows, max(rows, next_power_of_2(documents))
        if key not in engine._graphs:
            engine._graphs[key] = cls(engine, *key)
        return engine._graphs[key]

    def forward(self, inputs: Any) -> torch.Tensor:
        for own, given in zip(self._inputs, inputs[:3], strict=True):
            own.copy_(given)
        starts = inputs[3].starts
        self._where.starts[: len(starts)] = starts
        self._where.starts[len(starts) :] = self._inputs[0].numel()  # empty documents
        self._forward.replay()
        return self._loss.clone()

    def backward(self, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        self._grad_loss.copy_(grad_loss)
        self._backward.replay()
        return [gradient.clone() for gradient in self._gradients]


class _Host:
    """Layer inputs in pinned host memory, copied on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: dict[tuple[int, int], torch.Tensor] = {}
        self._coming: dict[int, tuple[list[torch.Tensor], torch.cuda.Event]] = {}

    def store(self, number: int, saved: Saved) -> None:
        """Start copying what `saved` holds; its GPU memory is free once the copy is done."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for place, tensor in enumerate(_tensors(saved)):
                key = number, place
                buffer = self._buffers.get(key)
                if buffer is None or buffer.shape != tensor.shape:
                    buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                    self._buffers[key] = buffer
                buffer.copy_(tensor, non_blocking=True)
                tensor.record_stream(self._stream)
        saved.x_MH = None
        if saved.attended is not None:
            saved.attended.out_MHD = torch.empty(0)

    def fetch(self, number: int, saved: list[Saved]) -> None:
        """Bring layer `number` back and start bringing the one before it."""
        if saved[number].x_MH is None:
            self._start(number)
            tensors, arrived = self._coming.pop(number)
            current = torch.cuda.current_stream(self._device)
            current.wait_event(arrived)
            for tensor in tensors:
                tensor.record_stream(current)
            saved[number].x_MH = tensors[0]
            attended = saved[number].attended
            if attended is not None:
                attended.out_MHD = tensors[1]
        if number and saved[number - 1].x_MH is None:
            self._start(number - 1)

    def _start(self, number: int) -> None:
        if number in self._coming:
            return
        with torch.cuda.stream(self._stream):
            buffers = [b for (n, _), b in self._buffers.items() if n == number]
            tensors = [b.to(self._device, non_blocking=True) for b in buffers]
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        self._coming[number] = tensors, arrived


def _tensors(saved: Saved) -> list[torch.Tensor]:
    assert saved.x_MH is not None
    return [saved.x_MH] if saved.attended is None else [saved.x_MH, saved.attended.out_MHD]


def _next_tokens(labels_BT: torch.Tensor) -> torch.Tensor:
    """Target of each position: the label one to the right; the last of a row has none."""
    target = torch.full_like(labels_BT, IGNORED)
    target[:, :-1] = labels_BT[:, 1:]
    return target.flatten()


def _wide_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in float32: an fp16 result could overflow under loss scaling."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


def _slices(rows: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]
