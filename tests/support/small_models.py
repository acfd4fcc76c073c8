"""Tuned models of a few layers of each family that the engine knows, and batches for them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.engine.decoder import Engine
from trainer.kernels.attention import Documents
from trainer.models.base_model import Base
from trainer.models.load import adapter_to_float32, attach_adapter, load_base
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

ROWS = 2


ROW = 48


ADAPTER_FILE = "adapter_model.safetensors"


UNDROPPED = {"attention_dropout": 0.0, "residual_dropout": 0.0}


SPECIAL = {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2, "use_sliding_window": False},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32, "use_sliding_window": False},
    "qwen3_moe": {
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
    },
    "qwen3_5_text": {
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 32,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "partial_rotary_factor": 0.5,
    },
    "smollm3": {"num_key_value_heads": 2, "no_rope_layers": [1, 0, 1], **SPECIAL},
    "seed_oss": {"num_key_value_heads": 2, "head_dim": 32, **UNDROPPED},
    "ministral3": {"num_key_value_heads": 2, "head_dim": 32},
    "granite": {
        "num_key_value_heads": 2,
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.1,
        "logits_scaling": 4.0,
    },
    "phi3": {"num_key_value_heads": 2, **UNDROPPED, **SPECIAL},
    "olmo2": {"num_key_value_heads": 2, **SPECIAL},
    "olmo3": {
        "num_key_value_heads": 2,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 5e3,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        **SPECIAL,
    },
    "glm4": {"num_key_value_heads": 2, "head_dim": 32, "attention_bias": True, **SPECIAL},
    "gemma": {"num_key_value_heads": 1, "head_dim": 32},
    "gemma3_text": {
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 48,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


PLANS = {
    "stored": MemoryPlan(stored_layers=3),
    "half": MemoryPlan(stored_layers=1),
    "recomputed": MemoryPlan(stored_layers=0, mlp_rows=40, logit_rows=17),
    "attention": MemoryPlan(stored_layers=0, keep_attention=True),
    "unpacked": MemoryPlan(stored_layers=3, unpacked_layers=2),
    "sliced": MemoryPlan(stored_layers=0, mlp_rows=17, logit_rows=5, offload_embeddings=False),
}


def tuned_model(
    family: str,
    folder: Path,
    targets: str,
    dropout: float = 0.0,
    precision: str = "fp32",
    kind: str = "cpu",
    **sizes: Any,
) -> Any:
    """A small random model of `family` in NF4 with an adapter that is not zero; `sizes` are changes
    of its config."""
    torch.manual_seed(0)
    usual = {
        "vocab_size": 331,
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    config = AutoConfig.for_model(family, **(usual | CONFIGS[family] | sizes))
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in made.named_parameters():
        if "bias" in name or "norm" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
        parameter.data = parameter.data.bfloat16().float()  # quantised alike from any precision
    made.save_pretrained(folder)
    given = {
        "SEED": 1,
        "LORA_R": 4,
        "LORA_ALPHA": 8,
        "LORA_DROPOUT": dropout,
        "TARGET_MODULES": targets,
        "SCRATCH_DIR": folder / "scratch",
    }
    variables = {f"QLORA_{name}": str(value) for name, value in given.items()}
    settings = Settings.read({}, variables, trains=False)
    base = Base(folder, family, "none")
    device = Device(kind, kind, None, 1 << 40)  # or its layers would lie in host memory
    model = load_base(base, settings, Precision(precision, "test"), device)
    model = attach_adapter(model, settings)
    adapter_to_float32(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape).to(parameter)
    model.train()
    return model


def packed_batch() -> dict[str, Any]:
    """Two rows of documents of different lengths; some labels are masked."""
    noise = torch.Generator().manual_seed(3)
    ids = torch.randint(331, (ROWS, ROW), generator=noise)
    lengths = [[20, 17, 11], [48]]
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    labels = ids.masked_fill(torch.rand(ids.shape, generator=noise) < 0.3, -100)
    return {
        "input_ids": ids,
        "labels": labels.masked_fill(positions == 0, -100),
        "position_ids": positions,
    }


def documents(positions: torch.Tensor) -> Documents:
    starts = (positions.flatten() == 0).nonzero().flatten()
    bounds = torch.cat([starts, torch.tensor([positions.numel()])]).int()
    return Documents(bounds, int(bounds.diff().max()))


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(trainable(model).values()))
    return dict(zip(trainable(model), found, strict=True))


def ours(model: Any, batch: dict[str, Any], made: Engine) -> tuple[float, dict[str, torch.Tensor]]:
    for parameter in made.parameters:  # another engine's too, over the same model
        parameter.grad = None
    loss = made.loss_sum(
        **{f"{k}_BT": v for k, v in batch.items()}, where=documents(batch["position_ids"])
    )
    loss.backward()
    of_each = {}
    for parameter in made.parameters:
        start = parameter.data_ptr()
        for name, view in trainable(model).items():
            at = (view.data_ptr() - start) // view.element_size()
            if 0 <= at < parameter.numel():
                of_each[name] = parameter.grad.flatten()[at : at + view.numel()].view(view.shape)
    assert len(of_each) == len(trainable(model))
    return float(loss.detach()), of_each


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    for name, gradient in expected[1].items():
        off = (found[1][name] - gradient).norm() / gradient.norm()
        assert off < tolerance, name
