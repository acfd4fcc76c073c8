"""An ETag is compared with the bytes that pass, where it is a digest of them."""

import os
from hashlib import md5

import pytest

from trainer.storage.s3 import etag

DATA = os.urandom(1000)


def is_held(tag: str, data: bytes, first_part: int = 0, step: int = 7) -> bool:
    """Whether `data`, arriving `step` bytes at a time, is what `tag` says of its object."""
    check = etag.EtagCheck(tag, len(data), lambda: first_part)
    for start in range(0, len(data), step):
        check.update(data[start : start + step])
    return check.holds()


def in_parts(data: bytes, part_bytes: int) -> str:
    """The ETag of an upload in parts."""
    starts = range(0, len(data), part_bytes)
    digests = [md5(data[start : start + part_bytes]).digest() for start in starts]
    return f"{md5(b''.join(digests)).hexdigest()}-{len(digests)}"


@pytest.mark.parametrize("step", [1, 7, 250, 1000])
@pytest.mark.parametrize("part_bytes", [1, 250, 333, 999, 1000])
def test_whatever_the_parts_one_wrong_bit_is_noticed(part_bytes: int, step: int) -> None:
    tag = in_parts(DATA, part_bytes)
    assert is_held(tag, DATA, part_bytes, step)
    assert not is_held(tag, DATA[:-1] + bytes([DATA[-1] ^ 1]), part_bytes, step)


def test_an_object_in_one_piece_has_its_own_md5() -> None:
    assert is_held(md5(DATA).hexdigest(), DATA)
    assert is_held(md5(b"").hexdigest(), b"")
    assert not is_held(md5(DATA).hexdigest(), DATA[::-1])


@pytest.mark.parametrize("tag", ["", "*", "no-digest", "0" * 31, "0" * 32 + "-123456"])
def test_an_etag_of_another_form_says_nothing(tag: str) -> None:
    assert not etag.is_possible(tag)
    assert is_held(tag, DATA)


@pytest.mark.parametrize("first_part", [0, 100, 1000])
def test_parts_that_are_not_of_one_size_cannot_be_compared(first_part: int) -> None:
    assert is_held("0" * 32 + "-2", DATA, first_part)


def test_the_switch_of_boto3_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(etag.SWITCH, "when_required")
    assert not etag.is_possible("0" * 32)
    assert is_held("0" * 32, DATA)
