"""A base of about a gigabyte and an adapter for it, random, written without holding it."""

import json
import struct
from pathlib import Path

from support.small_adapters import edit, random_adapter, tiny_as

HIDDEN, INNER, VOCABULARY = 2048, 5632, 32000
LAYERS = 7  # of 103 MB, and 262 MB at both ends


def write_base(folder: Path, layers: int = LAYERS) -> int:
    """Llama in bfloat16; the bytes of its largest tensor."""
    import torch

    tiny_as(folder, "bfloat16")
    edit(
        folder / "config.json",
        hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=layers,
        vocab_size=VOCABULARY, num_attention_heads=16, num_key_value_heads=16, head_dim=128,
        tie_word_embeddings=False,
    )  # fmt: skip
    random = torch.randn(HIDDEN).bfloat16().repeat(VOCABULARY).view(torch.uint8).numpy()
    entries, end = {}, 0
    for name, shape in _shapes(layers).items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for entry in entries.values():
            begin, end = entry["data_offsets"]
            random[: end - begin].tofile(stream)
    return len(random)


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for at in range(layers):
        layer = f"model.layers.{at}"
        shapes |= {f"{layer}.self_attn.{x}_proj.weight": (HIDDEN, HIDDEN) for x in "qkvo"}
        shapes |= {f"{layer}.mlp.{x}_proj.weight": (INNER, HIDDEN) for x in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{layer}.{x}_layernorm.weight": (HIDDEN,) for x in ("input", "post_attention")}
    return shapes


def write_adapter(run: Path, layers: int = LAYERS) -> Path:
    """Of rank 8, on two matrices of each layer of a base in a folder named `base`."""
    import torch
    from safetensors.torch import save_file

    adapter = random_adapter(run) / "adapter"
    edit(adapter / "adapter_config.json", base_model_name_or_path="base", r=8)
    pairs = {}
    for at in range(layers):
        layer = f"base_model.model.model.layers.{at}"
        targets = {"self_attn.q_proj": (HIDDEN, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
        for module, (rows, columns) in targets.items():
            pairs[f"{layer}.{module}.lora_A.weight"] = torch.randn(8, columns)
            pairs[f"{layer}.{module}.lora_B.weight"] = torch.randn(rows, 8)
    save_file(pairs, adapter / "adapter_model.safetensors")
    return adapter
