"""Experts in NF4 compute what transformers computes with their values, and hold a quarter."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import write_checkpoint
from support.bases import load_small, settings_for
from support.sweep import plain_nf4

from trainer.models import load as loader
from trainer.models.load import attach_adapter, load_base
from trainer.models.locate import BUILTIN, local_base, locate_base
from trainer.models.nf4_experts import NF4Experts
from trainer.models.safetensors_files import read_header
from trainer.models.trained_weights import TrainedWeights
from trainer.runtime.device import Precision, find_device
from trainer.runtime.nf4 import NF4_BYTES

FAMILIES = ("qwen3_moe", "gpt_oss")  # a tensor for each expert; all in one, interleaved, biased


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(request.param, tmp_path_factory.mktemp("moe"), BUILTIN / "tiny")


def experts_of(model: Any) -> dict[str, NF4Experts]:
    return {name: one for name, one in model.named_modules() if isinstance(one, NF4Experts)}


def dequantised(one: NF4Experts) -> torch.Tensor:
    scales = one.scales()
    return one.weights(0, one.layout.experts, scales)


def test_they_are_what_bitsandbytes_makes_of_each_matrix(checkpoint: Path, tmp_path: Path) -> None:
    ours = experts_of(load_small(settings_for(checkpoint, tmp_path)))
    truth = plain_nf4(local_base(checkpoint, "moe"))
    assert len(ours) == 4
    for name, one in ours.items():
        assert torch.equal(dequantised(one), truth.get_parameter(name)), name


def test_products_and_their_gradients_are_those_of_the_values(
    checkpoint: Path, tmp_path: Path
) -> None:
    ours = load_small(settings_for(checkpoint, tmp_path)).model.layers[0].mlp.experts
    truth = plain_nf4(local_base(checkpoint, "moe")).model.layers[0].mlp.experts
    made = []
    for experts in (ours, truth):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(9, 128, generator=generator).requires_grad_()
        weights = torch.rand(9, 2, generator=generator).requires_grad_()
        chosen = torch.stack([torch.randperm(3, generator=generator)[:2] for _ in range(9)])
        out = experts(x, chosen, weights)  # nobody asks the last expert
        out.backward(torch.randn(9, 128, generator=generator))
        made.append((out.detach(), x.grad, weights.grad))
    for mine, wanted in zip(*made, strict=True):
        assert mine is not None and wanted is not None
        assert torch.allclose(mine, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_a_quarter_is_held_and_nothing_of_it_in_16_bits(checkpoint: Path, tmp_path: Path) -> None:
    model = load_small(settings_for(checkpoint, tmp_path), "bf16")
    held = values = 0
    for one in experts_of(model).values():
        values += one.layout.values
        held += sum(getattr(one, name).nbytes for name in one.layout.tensors())
    assert values == locate_base(settings_for(checkpoint, tmp_path)).shape().expert_parameters
    assert held == pytest.approx(values * NF4_BYTES, rel=0.05)  # small ones have few scales
    assert not [n for n, p in model.named_parameters() if p.dim() == 3]


def test_an_adapter_with_dropout_trains_beside_them(checkpoint: Path, tmp_path: Path) -> None:
    given = {"TARGET_MODULES": "all-linear", "LORA_DROPOUT": "0.1"}
    settings = settings_for(checkpoint, tmp_path, **given)
    model = attach_adapter(load_small(settings), settings).train()
    model(input_ids=torch.arange(24)[None]).logits.sum().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any(".experts." in name for name in trained)
    assert all(gradient is not None for gradient in trained.values())


def test_they_are_kept_with_the_base_and_come_back_the_same(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(checkpoint, tmp_path, BASE_CACHE_URI=str(tmp_path / "cache"))
    first = load_small(settings)
    with caplog.at_level(logging.INFO):
        again = load_small(settings)
    assert "the quantised base comes from" in caplog.text
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert len(experts_of(again)) == 4


def test_what_transformers_loader_has_read_becomes_the_same(
    checkpoint: Path, tmp_path: Path
) -> None:
    streamed = load_small(settings_for(checkpoint, tmp_path))
    base = local_base(checkpoint, "moe")
    read = loader.load_with_transformers(base, torch.float32, torch.device("cpu"))
    loader._quantise_experts(read, torch.float32)
    theirs = experts_of(read)
    for name, one in experts_of(streamed).items():
        assert torch.equal(dequantised(one), dequantised(theirs[name]))


def test_a_merged_model_starts_from_the_values_that_were_trained_on(
    checkpoint: Path, tmp_path: Path
) -> None:
    base = local_base(checkpoint, "moe")
    settings = settings_for(checkpoint, tmp_path)
    model = load_base(base, settings, Precision("bf16", "test"), find_device())
    trained = TrainedWeights(base, torch.bfloat16)
    held = {name: dequantised(one) for name, one in experts_of(model).items()}
    found = 0
    for tensor in read_header(checkpoint / "model.safetensors")[1]:
        place = trained.place(tensor.name)
        if place is None or place.name not in held:
            continue
        matrices = trained.matrices(tensor.name, tensor.read())
        assert matrices is not None
        wanted = held[place.name].view(-1, *matrices.shape[1:])
        for n, matrix in enumerate(matrices, place.matrix or 0):
            found += 1
            assert torch.equal(trained.quantised(matrix).rows(0, len(matrix)), wanted[n])
    assert found == sum(one.layout.matrices for one in experts_of(model).values())
