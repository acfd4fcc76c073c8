"""Adapters and bases that were not trained: random, small, made in a second."""

import json
from pathlib import Path
from typing import Any

from trainer.models.adapter_files import QUANTISATION
from trainer.models.locate import BUILTIN, local_base

TINY = BUILTIN / "tiny"


def random_adapter(folder: Path, base: Path = TINY, **lora: Any) -> Path:
    """A run with nothing but an adapter that changes every answer of `base`, in peft's layout."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"} | lora
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "adapter")
    precision = json.dumps({"bnb_4bit_compute_dtype": "float32"})  # as a run on a CPU leaves it
    (folder / "adapter" / QUANTISATION).write_text(precision)
    name = "builtin:tiny" if base == TINY else base.name
    edit(
        folder / "adapter" / "adapter_config.json",
        base_model_name_or_path=name,
        revision=local_base(base, name).revision,
    )
    return folder


def tiny_as(folder: Path, dtype: str, shard_size: str = "5GB") -> Path:
    """The built-in model in another precision, in shards."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
