"""What NF4 is made of is known beforehand, whatever the shape of a weight."""

import pytest
import torch

from trainer.models.experts import ExpertLayout
from trainer.models.nf4_layout import STATE, NF4Layout
from trainer.models.nf4_stream import to_nf4
from trainer.models.safetensors_files import DTYPES, TensorEntry

WIDTHS = {f"torch.{name}": short for short, name in DTYPES.items()}


def made_of(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    packed, state = to_nf4(torch.randn(shape), dtype)
    parts = {f"w.{name}": part for name, part in state.as_dict(packed=True).items()}
    return {"w": packed, **parts}


def entries(tensors: dict[str, torch.Tensor]) -> list[TensorEntry]:
    return [
        TensorEntry(name, WIDTHS[str(tensor.dtype)], tuple(tensor.shape), 0, tensor.nbytes)
        for name, tensor in tensors.items()
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 64), (6, 100), (3, 7), (128, 256), (5, 4096)])
def test_what_bitsandbytes_makes_is_what_is_expected(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    made, layout = made_of(shape, dtype), NF4Layout({"w": (dtype, shape)}, ["w"], {})
    assert layout.fault(entries(made)) == ""
    assert layout.missing(made) == ""
    assert layout.state_fault("w" + STATE, made["w" + STATE]) == ""


def test_a_part_too_few_another_or_of_another_shape_is_named() -> None:
    shape = (6, 100)
    made, layout = (
        made_of(shape, torch.float32),
        NF4Layout({"w": (torch.float32, shape)}, ["w"], {}),
    )
    assert layout.missing({"w"}) == "its files have no w.absmax"
    assert "w.more is float32 [1]" in layout.fault(entries({"w.more": torch.ones(1)}))
    assert "w.absmax is uint8 [9]" in layout.fault(entries({"w.absmax": made["w.absmax"][:9]}))
    assert "cannot be read" in layout.state_fault("w" + STATE, torch.zeros(9, dtype=torch.uint8))


def test_experts_have_a_row_for_each_matrix() -> None:
    experts = ExpertLayout(4, 2, 64, 100)  # 100 scales a matrix
    layout = NF4Layout({}, [], {"e": experts})
    made = {f"e.{part}": torch.zeros(shape, dtype=getattr(torch, dtype))
            for part, (dtype, shape) in experts.tensors().items()}  # fmt: skip
    assert made["e.packed"].shape == (8, 3200)
    assert made["e.absmax"].shape == (8, 256)
    assert layout.fault(entries(made)) == ""
    assert (
        layout.missing({"e.packed", "e.absmax", "e.offset"}) == "its files have no e.nested_absmax"
    )
    assert "e.offset is float32 [7]" in layout.fault(entries({"e.offset": torch.ones(7)}))
