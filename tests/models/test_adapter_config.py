"""What a stranger's adapter_config.json can ask for: nothing but LoRA of a sound rank."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.small_adapters import TINY, edit, random_adapter
from transformers import AutoModelForCausalLM

from trainer.errors import DataError
from trainer.export.lora_delta import deltas_of
from trainer.models.adapters import find_adapter
from trainer.models.safetensors_files import read_header
from trainer.settings import Settings

SETTINGS = Settings.read({}, {}, trains=False)
Weights = dict[str, torch.Tensor]


@pytest.fixture
def run(tmp_path: Path, made: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("made"))


def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"peft_type": "XLORA"}, "is for 'XLORA', and only 'LORA'"),
        ({"peft_type": None}, "is for 'None'"),
        ({"r": 10**7}, "r=10000000 is no rank from 1 to 1024"),
        ({"r": 0}, "r=0 is no rank"),
        ({"r": "x"}, "r=x is no rank"),
        ({"r": True}, "r=True is no rank"),
        ({"lora_alpha": float("inf")}, "lora_alpha=inf is no number"),
        ({"lora_alpha": 10**400}, r"adapter_config.json cannot be read \(a number of 401 digits\)"),
        ({"lora_alpha": "16"}, "lora_alpha=16 is no number"),
        ({"bias": "all"}, "it has biases"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save, which only peft itself knows"),
        ({"rank_pattern": {"(a+)+$": 4}}, "uses rank_pattern"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is no text"),
        ({"revision": 5}, "revision is no text"),
    ],
)
def test_what_is_not_allowed_is_named(run: Path, change: dict[str, Any], fact: str) -> None:
    edit(run / "adapter" / "adapter_config.json", **change)
    with pytest.raises(DataError, match=fact):
        find_adapter(str(run), SETTINGS)


@pytest.mark.parametrize("broken", [b"[]", b"null", b"{", b"\xff\xfe", b"[" * 10**5, b"5"])
def test_what_is_no_object_is_named(run: Path, broken: bytes) -> None:
    (run / "adapter" / "adapter_config.json").write_bytes(broken)
    with pytest.raises(DataError, match=r"adapter_config\.json cannot be read \("):
        find_adapter(str(run), SETTINGS)


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (lambda half: half.to(torch.float8_e4m3fn), "is F8_E4M3, and an adapter is of"),
        (lambda half: half.to(torch.int64), "is I64, and an adapter is of"),
        (lambda half: half / 0, "holds NaN or infinity"),
        (lambda half: half * torch.tensor(float("inf")), "holds NaN or infinity"),
    ],
)
def test_weights_that_nothing_can_be_computed_with_are_named(
    run: Path, spoil: Callable[[torch.Tensor], torch.Tensor], fact: str
) -> None:
    """Asked and merged alike."""
    file = run / "adapter" / "adapter_model.safetensors"
    save_file({name: spoil(half) for name, half in load_file(file).items()}, file)
    adapter = find_adapter(str(run), SETTINGS)
    with pytest.raises(DataError, match=fact):
        adapter.attach(base())
    with pytest.raises(DataError, match=fact):
        deltas_of(adapter, read_header(TINY / "model.safetensors")[1])


def test_pickled_weights_are_not_read(run: Path) -> None:
    (run / "adapter" / "adapter_model.safetensors").rename(run / "adapter" / "adapter_model.bin")
    with pytest.raises(DataError, match="pickled weights are never read"):
        find_adapter(str(run), SETTINGS)


@pytest.mark.parametrize("modules", [r"(([a-z_.0-9]+)+)+$X", "all-linear", ["q_proj"], None, 5])
def test_its_modules_are_those_that_have_weights(run: Path, modules: object) -> None:
    """The pattern of a stranger, which can take for ever, is not asked."""
    plain = PeftModel.from_pretrained(base(), run / "adapter").state_dict()
    edit(run / "adapter" / "adapter_config.json", target_modules=modules)
    tuned = find_adapter(str(run), SETTINGS).attach(base()).state_dict()
    assert tuned.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in tuned.items())


def without_one(weights: Weights) -> Weights:
    return dict(list(weights.items())[1:])


def renamed(weights: Weights) -> Weights:
    return {name.replace("q_proj", "z_proj"): tensor for name, tensor in weights.items()}


def with_another(weights: Weights) -> Weights:
    return weights | {"base_model.model.lm_head.weight": torch.ones(2)}


def of_another_shape(weights: Weights) -> Weights:
    return {name: tensor[:, :-1].contiguous() for name, tensor in weights.items()}


def of_another_rank(weights: Weights) -> Weights:
    return {n: (t[:4] if "lora_A" in n else t[:, :4]).contiguous() for n, t in weights.items()}


@pytest.mark.parametrize(
    "spoil",
    [lambda _: {}, without_one, renamed, with_another, of_another_shape, of_another_rank],
    ids=["empty", "one less", "renamed", "one more", "another shape", "another rank"],
)
def test_weights_that_are_not_all_used_are_an_error(
    run: Path, spoil: Callable[[Weights], Weights]
) -> None:
    """Else the base would answer in the name of the adapter."""
    file = run / "adapter" / "adapter_model.safetensors"
    save_file(spoil(load_file(file)), file)
    with pytest.raises(DataError, match=r"does not fit builtin:tiny|holds no LoRA weights"):
        find_adapter(str(run), SETTINGS).attach(base())


def test_other_lora_that_peft_knows_still_answers_as_there(tmp_path: Path) -> None:
    for option in ("use_dora", "use_rslora"):
        folder = random_adapter(tmp_path / option, **{option: True})
        plain = PeftModel.from_pretrained(base(), folder / "adapter")
        tuned = find_adapter(str(folder), SETTINGS).attach(base())
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(tuned.eval()(ids).logits, plain.eval()(ids).logits)
        assert json.loads((folder / "adapter" / "adapter_config.json").read_text())[option]
