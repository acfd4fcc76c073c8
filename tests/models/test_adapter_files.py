"""An adapter is saved as peft reads it, without paths of this machine."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from support.small_adapters import TINY, random_adapter
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from trainer.models.adapter_files import QUANTISATION, save_adapter
from trainer.models.load import attach_adapter, load_base
from trainer.models.locate import local_base
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings


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
    assert not (saved / QUANTISATION).exists()  # this base is in 32 bits
    for path in saved.glob("*.json"):
        assert str(TINY) not in path.read_text() and str(tmp_path) not in path.read_text(), path


def test_the_four_bits_it_was_trained_on_leave_with_it(tmp_path: Path) -> None:
    settings = Settings.read({}, {"QLORA_SCRATCH_DIR": str(tmp_path)}, trains=False)
    base = local_base(TINY, "builtin:tiny")
    model = load_base(base, settings, Precision("bf16", "test"), find_device())
    save_adapter(attach_adapter(model, settings), base.tokenizer(), base, tmp_path / "saved")
    record = json.loads((tmp_path / "saved" / QUANTISATION).read_text())
    config = BitsAndBytesConfig.from_dict(record)
    assert config.load_in_4bit
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
