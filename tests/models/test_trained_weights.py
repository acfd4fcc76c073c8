"""The values that a run trained against, computed from the base's files: the same bits."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from support.small_adapters import TINY, tiny_as
from transformers import AutoConfig

from trainer.errors import SettingsError
from trainer.models.load import load_base
from trainer.models.locate import local_base
from trainer.models.nf4_stream import to_nf4
from trainer.models.safetensors_files import read_header
from trainer.models.trained_weights import NF4Matrix, TrainedWeights
from trainer.runtime.device import Precision, find_device
from trainer.settings import Settings


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("stored_in", ["bfloat16", "float32"])
def test_each_weight_is_what_the_trained_model_held(
    precision: str, stored_in: str, tmp_path: Path
) -> None:
    folder = tiny_as(tmp_path / "base", stored_in)
    base, chosen = local_base(folder, "base"), Precision(precision, "test")
    settings = Settings.read({}, {"QLORA_SCRATCH_DIR": str(tmp_path)}, trains=False)
    model = load_base(base, settings, chosen, find_device())
    held = dict(model.named_modules())
    trained, quantised = TrainedWeights(base, chosen.dtype), 0
    for tensor in read_header(folder / "model.safetensors")[1]:
        layer = held[tensor.name.removesuffix(".weight")]
        matrices = trained.matrices(tensor.name, tensor.read())
        assert (matrices is not None) == isinstance(layer, Linear4bit)
        if matrices is None:
            assert torch.equal(trained.round(tensor.read()), layer.weight), tensor.name
        else:
            quantised += 1
            expected = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            matrix = trained.quantised(matrices[0])
            assert torch.equal(matrix.rows(0, len(expected)), expected), tensor.name
    assert quantised == 4 * 7


@pytest.mark.parametrize("shape", [(64, 128), (7, 341), (3, 5), (201, 96), (130, 33)])
def test_rows_are_those_of_the_whole_matrix_at_any_width(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = dequantize_4bit(*to_nf4(weight.reshape(1, -1), torch.bfloat16)).reshape(shape)
    matrix = NF4Matrix.of(weight, torch.bfloat16)
    step = matrix.aligned_rows
    parts = [matrix.rows(start, start + step) for start in range(0, shape[0], step)]
    assert torch.equal(torch.cat(parts), expected)


def test_a_base_that_is_not_quantised_here_is_named_with_the_way_out(tmp_path: Path) -> None:
    AutoConfig.for_model("gpt2", n_layer=1, n_embd=32, n_head=2).save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"stored transposed.*add --base-weights 16bit"):
        TrainedWeights(local_base(tmp_path, "gpt2"), torch.float16)


def test_an_embedding_is_not_quantised() -> None:
    trained = TrainedWeights(local_base(TINY, "builtin:tiny"), torch.float16)
    assert trained.matrices("model.embed_tokens.weight", torch.ones(64, 64)) is None
