"""A short, fixed part of what tests/fuzz.py does for as long as it is given."""

from pathlib import Path

import fuzz


def test_damaged_files_of_every_format_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz.replay(40 * len(fuzz.SEEDS), seed=1, folder=tmp_path)
    assert found.total() == 40 * len(fuzz.SEEDS)
    assert found["read"] > 100 and found["refused"] > 100


def test_every_undamaged_seed_is_read(tmp_path: Path) -> None:
    with fuzz.Sandbox(fuzz.LIMITS) as sandbox:
        for name, content in fuzz.SEEDS.items():
            (tmp_path / name).write_bytes(content)
            assert fuzz.outcome(tmp_path / name, sandbox) == "read", name


def test_what_the_coverage_guided_runs_kept_is_read_or_refused(tmp_path: Path) -> None:
    found = fuzz.replay_kept(tmp_path)
    assert found.total() > 100 and found["read"] and found["refused"]
