"""The scratch disk is measured where layers are to lie there."""

from pathlib import Path

import pytest

from trainer.planner import disk_speed


def test_reading_is_measured_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_speed, "TRIED_BYTES", 2**24)
    folder = tmp_path / "not" / "there yet"
    assert 0 <= disk_speed.free_disk_bytes(folder) < 2**60
    assert 10**6 < disk_speed.disk_bytes_per_s(folder) < 10**12
    assert not list(folder.iterdir())


def test_memory_that_looks_like_a_disk_is_none(tiny_disk: Path) -> None:
    assert disk_speed.free_disk_bytes(tiny_disk / "scratch") == 0
