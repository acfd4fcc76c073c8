"""Checkpoints are complete or absent, and a damaged one is named and never used."""

import json
import shutil
from pathlib import Path

import pytest
from support.checkpoints import damage, fill, open_checkpoints

FILES = ("adapter.safetensors", "state.json", "fingerprint.json", "manifest.json")


def test_the_newest_is_used(saved: Path) -> None:
    newest = open_checkpoints(saved).newest()
    assert newest is not None
    assert (newest / "state.json").read_text() == '{"step": 20}'


def test_a_fresh_node_gets_it_from_the_store(saved: Path) -> None:
    newest = open_checkpoints(saved, "fresh").newest()
    assert newest == saved / "fresh" / "step-000020"
    assert (newest / "adapter.safetensors").read_bytes() == bytes([20]) * 1000


@pytest.mark.parametrize("how", ["missing", "empty", "half", "flipped"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", ["node", "store/run/checkpoints"])
def test_damage_is_noticed_and_a_good_copy_or_an_older_one_is_used(
    place: str, file: str, how: str, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if place != "node":
        shutil.rmtree(saved / "node")
    damage(saved / place / "step-000020" / file, how)
    newest = open_checkpoints(saved).newest()
    assert newest is not None
    step = int(newest.name.removeprefix("step-"))
    assert (newest / "adapter.safetensors").read_bytes() == bytes([step]) * 1000
    assert step == (20 if place == "node" else 10)
    if (place, file, how) != ("store/run/checkpoints", "manifest.json", "missing"):
        assert "step-000020 is invalid" in caplog.text


@pytest.mark.parametrize("place", ["node", "store"])
def test_a_checkpoint_of_another_run_is_never_used(
    place: str, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "store":
        shutil.rmtree(saved / "node")
    assert open_checkpoints(saved, fingerprint="another").newest() is None
    assert "step-000020 is invalid and is not used: it belongs to another run" in caplog.text


def test_what_a_killed_save_left_is_removed(saved: Path) -> None:
    leftover = saved / "node" / "step-000030.partial"
    leftover.mkdir()
    assert open_checkpoints(saved).newest() == saved / "node" / "step-000020"
    assert not leftover.exists()


def test_two_are_kept_by_step_in_both_places(saved: Path) -> None:
    checkpoints = open_checkpoints(saved)
    checkpoints.save(30, fill(30))
    checkpoints.finish()
    for place in (saved / "node", saved / "store" / "run" / "checkpoints"):
        assert sorted(p.name for p in place.glob("step-*")) == ["step-000020", "step-000030"]


def test_a_run_that_starts_over_keeps_its_own_and_not_later_ones_of_before(saved: Path) -> None:
    checkpoints = open_checkpoints(saved)
    checkpoints.discard()
    checkpoints.save(5, fill(5))
    checkpoints.finish()
    for place in (saved / "node", saved / "store" / "run" / "checkpoints"):
        assert [p.name for p in place.glob("step-*")] == ["step-000005"]


def test_a_full_disk_leaves_the_last_good_one(tiny_disk: Path) -> None:
    checkpoints = open_checkpoints(tiny_disk)
    checkpoints.save(1, fill(1))
    checkpoints.finish()
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, lambda folder: (folder / "big").write_bytes(b"x" * 10**6))
    assert open_checkpoints(tiny_disk).newest() == tiny_disk / "node" / "step-000001"


def test_a_stored_one_of_an_absurd_size_is_passed_over(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a fault of its manifest, and no lack of room for which the run would have to end."""
    shutil.rmtree(saved / "node")
    manifest = saved / "store/run/checkpoints/step-000020/manifest.json"
    listed = json.loads(manifest.read_text())
    listed["objects"]["state.json"]["size"] = 10**15
    manifest.write_text(json.dumps(listed))
    newest = open_checkpoints(saved).newest()
    assert newest is not None
    assert newest.name == "step-000010"
    assert "step-000020 is invalid" in caplog.text
