"""An adapter is saved as peft reads it, without paths of this machine."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from support.small_adapters import TINY, random_adapter
from transformers import AutoModelForCausalLM

from trainer.models.adapter_files import save_adapter
from trainer.models.locate import local_base


def test_peft_reads_what_was_saved_and_nothing_names_this_machine(tmp_path: Path) -> None:
    source = random_adapter(tmp_path / "run") / "adapter"

    def tuned(folder: Path) -> PeftModel:
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
        return PeftModel.from_pretrained(model, folder)

    base, saved, model = local_base(TINY, "builtin:tiny"), tmp_path / "saved", tuned(source)
    save_adapter(model, base.tokenizer(), base, saved)
    again, first = tuned(saved).state_dict(), model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "builtin:tiny"
    assert config["revision"] == base.revision
    assert config["target_modules"] == sorted(config["target_modules"])
    assert not (saved / "README.md").exists()
    for path in saved.glob("*.json"):
        assert str(TINY) not in path.read_text() and str(tmp_path) not in path.read_text(), path
