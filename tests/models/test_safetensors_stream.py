"""Tensors from a stream of bytes, and each way in which the bytes can be wrong."""

from collections.abc import Iterator

import pytest
import torch
from support.safetensors import entry, file_of

from trainer.errors import DataError
from trainer.models.safetensors_files import TensorEntry
from trainer.models.safetensors_stream import Shard, stream_tensors
from trainer.storage import DamagedError

CPU = torch.device("cpu")


def shard_of(content: bytes, size: int | None = None) -> Shard:
    """In chunks of seven bytes, which no tensor ends with."""
    chunks = [content[start : start + 7] for start in range(0, len(content), 7)]
    return Shard("the/file", len(content) if size is None else size, lambda: iter(chunks))


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    header = {"late": entry(8, 12, [1]), "early": entry(0, 8, [1, 2], "I32")}
    data = bytes(8) + torch.tensor([1.5]).numpy().tobytes()
    (first, early), (second, late) = stream_tensors(shard_of(file_of(header, data)), CPU)
    assert (first, second) == ("early", "late")
    assert torch.equal(early, torch.zeros(1, 2, dtype=torch.int32))
    assert torch.equal(late, torch.tensor([1.5]))


def test_the_last_tensor_is_not_given_before_the_whole_file_was_right() -> None:
    content = file_of({"a": entry(0, 4, [1]), "b": entry(4, 8, [1])}, bytes(8))

    def read() -> Iterator[bytes]:
        yield content
        raise DamagedError("not its digest")

    given = []
    with pytest.raises(DamagedError):
        for name, _ in stream_tensors(Shard("the/file", len(content), read), CPU):
            given.append(name)
    assert given == ["a"]


def test_the_header_is_shown_before_a_tensor_is_made() -> None:
    def refuse(entries: list[TensorEntry]) -> None:
        assert entries == [TensorEntry("a", "F32", (1,), 0, 4)]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(stream_tensors(shard_of(file_of({"a": entry(0, 4, [1])}, bytes(4))), CPU, refuse))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "ends early"),
        (b"\x10", "ends early"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        (file_of({"a": entry(0, 3, [2, 3], "F4")}, bytes(3)), "'a' is F4"),
        (b"\xff" * 20, "its header would have"),
        (file_of(b"[]"), "its header is no list of tensors"),
        (file_of(b"[" * 100_000), "its header is no list of tensors"),
        (file_of({"a": {"dtype": "F32"}}), "its header is no list of tensors"),
        (file_of({"a": entry(0, 8, [2])}, bytes(4)), "ends early"),
        (file_of({"a": entry(0, 4, [1])}, bytes(8))[:-4] + b"more", "longer"),
        (file_of({"a": entry(0, 8, [3])}, bytes(8)), "'a' is not where its header says"),
        (file_of({"a": entry(0, 4, [1]), "b": entry(2, 6, [1])}, bytes(8)), "'b' is not where"),
        (file_of({"a": entry(0, 4, [-1, -1])}, bytes(4)), "its header is no list of tensors"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, fault: str) -> None:
    shard = shard_of(content, len(content) - (4 if fault == "longer" else 0))
    with pytest.raises(DataError, match=r"the/file: no sound safetensors file") as caught:
        list(stream_tensors(shard, CPU))
    assert fault in str(caught.value)
