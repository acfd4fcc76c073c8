"""Base models of a few layers, written as a hub writes them."""

from pathlib import Path
from typing import Any

import torch

from trainer.settings import Settings

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def write_base(folder: Path, config: Any, dtype: torch.dtype, shard: str = "5GB") -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, dtype=dtype)
    made.save_pretrained(folder, max_shard_size=shard)
    return folder


def settings_for(base: Path | str, scratch: Path, **changes: str) -> Settings:
    given = {"BASE_MODEL": str(base), "SCRATCH_DIR": str(scratch), "STORAGE_RETRY_MINUTES": "0"}
    return Settings.read({}, {f"QLORA_{k}": v for k, v in (given | changes).items()}, trains=False)
