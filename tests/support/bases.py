"""Base models of a few layers, written as a hub writes them."""

from pathlib import Path
from typing import Any

import torch

from trainer.models import load
from trainer.models.base_model import Base
from trainer.models.locate import locate_base
from trainer.runtime.device import Precision, find_device
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


def load_small(settings: Settings, precision: str = "fp32") -> Any:
    """The base of `settings` as a run loads it."""
    base = locate_base(settings)
    return load.load_base(base, settings, Precision(precision, "a test"), find_device())


def load_by_transformers(folder: Path, precision: str = "fp32") -> Any:
    """The base in `folder` as transformers' own loader makes it."""
    base = Base(folder, "base", "none")
    place = "cuda:0" if torch.cuda.is_available() else "cpu"
    dtype = Precision(precision, "a test").dtype
    return load.load_with_transformers(base, dtype, torch.device(place))


def assert_same_base(one: Any, other: Any) -> None:
    """Weights, quantisation tables and buffers are the same bits."""
    for kind in ("state_dict", "named_buffers"):
        ours, theirs = dict(getattr(one, kind)()), dict(getattr(other, kind)())
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
    assert (one.is_loaded_in_4bit, one.training) == (other.is_loaded_in_4bit, other.training)
