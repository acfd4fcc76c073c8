"""The header of a safetensors file, and its tensors read where they lie."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.safetensors import entry, file_of

from trainer.errors import DataError
from trainer.models.safetensors_files import read_header

TENSORS = {
    "matrix": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "vector": torch.tensor([1.5, -2.5]),
    "half": torch.tensor([[7.0]], dtype=torch.float16),
    "numbers": torch.tensor([1, 2, 3], dtype=torch.int32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_header_and_tensors_in_their_order_are_the_whole_file(file: Path) -> None:
    before, stored = read_header(file)
    content = file.read_bytes()
    assert content.startswith(before)
    assert {tensor.name: tensor.shape for tensor in stored} == {
        name: tuple(tensor.shape) for name, tensor in TENSORS.items()
    }
    data = b"".join(content[t.start : t.start + t.size] for t in stored)
    assert before + data == content


@pytest.mark.parametrize("buffer", [None, torch.empty(64, dtype=torch.uint8)])
def test_floats_are_read_as_they_are_and_all_else_as_its_bytes(
    file: Path, buffer: torch.Tensor | None
) -> None:
    for tensor in read_header(file)[1]:
        read, expected = tensor.read(buffer), TENSORS[tensor.name]
        if expected.dtype == torch.int32:
            expected = expected.view(torch.uint8)
        assert read.dtype == expected.dtype and torch.equal(read, expected)
        assert buffer is None or read.data_ptr() == buffer.data_ptr()


def test_a_type_that_torch_does_not_have_is_bytes_too(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(file_of({"a": entry(0, 3, [2, 3], "F4")}, b"abc"))
    (tensor,) = read_header(file)[1]
    assert bytes(tensor.read().numpy()) == b"abc"


def test_a_file_without_tensors_is_one(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    assert read_header(tmp_path / "empty.safetensors")[1] == []


def test_a_file_that_became_shorter_is_noticed(file: Path) -> None:
    _, stored = read_header(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"model\.safetensors: became shorter"):
        stored[-1].read()


NO_FILE, MISPLACED = "not a safetensors file; fetch it again", "are not what its header says; fetch"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", NO_FILE),
        (b"\x10", NO_FILE),
        (b"<html>not found</html>", NO_FILE),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", NO_FILE),
        (b"\xff" * 20, NO_FILE),
        (file_of(b"[]"), NO_FILE),
        (file_of(b"[" * 100_000), NO_FILE),
        (file_of({"a": {"dtype": "F32"}}), NO_FILE),
        (file_of({"a": entry(0, 4, [-1, -1])}, bytes(4)), NO_FILE),
        *((file_of({"a": entry(0, 0, [0, n])}), NO_FILE) for n in (2**63, 10**30, True)),
        (file_of({"a": entry(0, 0, [0] * 65)}), NO_FILE),
        *((file_of({"__metadata__": said}), NO_FILE) for said in (5, "a", {"a": [1]})),
        (file_of('{"a": {}}'.encode("utf-16")), NO_FILE),
        (file_of({"a": entry(0, 8, [2])}, bytes(4)), MISPLACED),
        (file_of({"a": entry(0, 4, [1])}, bytes(8)), MISPLACED),
        (file_of({"a": entry(0, 8, [3])}, bytes(8)), MISPLACED),
        (file_of({"a": entry(0, 4, [1]), "b": entry(2, 6, [1])}, bytes(6)), MISPLACED),
        (file_of({"a": entry(4, 8, [1])}, bytes(8)), MISPLACED),  # a hole
    ],
)
def test_a_damaged_file_is_named(content: bytes, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"^model\.safetensors: .*{fault}"):
        read_header(file)


def test_the_order_of_the_header_need_not_be_that_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    header: dict[str, Any] = {"late": entry(4, 8, [1]), "early": entry(0, 4, [1])}
    file.write_bytes(file_of(json.dumps(header).encode(), bytes(8)))
    assert [tensor.name for tensor in read_header(file)[1]] == ["early", "late"]
