"""Forward and backward of a Llama-like decoder over a frozen NF4 base, written out by hand.

The stock path (transformers, peft, bitsandbytes under autograd) keeps what autograd happens to
need, computes whole layers twice, and starts thousands of small kernels. A frozen base needs no
weight gradients, so much less has to be kept: of a layer its input, q, k, v, the attention's
output, the middle of the residual stream, gate and up. Norms, rotations and SwiGLU are computed
again, products are not. Layers that a `MemoryPlan` does not keep save their input alone, on the
GPU or in pinned host memory, and are computed again without their last product.

From the whole to its parts: `decoder` (the engine itself), `graphs` (as a node of autograd, as CUDA
graphs), `layer` (one decoder layer), `products` (one linear layer with its adapter), `head` (the
loss), `host` (what waits in host memory), `parts` and `state` (what is trained on, what is saved).

Shapes: M tokens of all rows in one line, H hidden, I intermediate, D head size, r adapter rank.
Weights are [out, in] as in torch.nn.Linear.
"""
