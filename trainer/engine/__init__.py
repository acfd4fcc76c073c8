"""Forward and backward of a Llama-like decoder over a frozen NF4 base, written out by hand.

The stock path (transformers, peft, bitsandbytes under autograd) saves what autograd happens to
need, computes whole layers twice, and starts thousands of small kernels. A frozen base needs no
weight gradients, so much less has to be saved: of a layer its input, q, k, v, the attention's
output, the middle of the residual stream, gate and up. Norms, rotations and SwiGLU are computed
again, products are not. Layers that a `MemoryPlan` does not store save their input alone, on the
GPU or in pinned host memory, and are computed again without their last product.

From the whole to its pieces: `decoder` (the engine itself), `decoder_passes` (both passes under one
memory plan), `cuda_graphs` (as a node of autograd, as CUDA graphs), `decoder_layer` (one layer),
`lora_linear` (one linear layer with its adapter), `lm_head` (the loss), `cpu_offload` (what waits
in host memory), `weights` and `adapter_parameters` (what is computed with, what is trained),
`activations` (what is saved). `support` says which models and runs it takes.

Shapes: M tokens of all rows in one line, H hidden, I intermediate, D head size, r adapter rank.
Weights are [out, in] as in torch.nn.Linear.
"""
