"""Nobody else reads what is in the scratch folder, and nobody else has put it there."""

import os
from pathlib import Path

import pytest

from trainer.errors import SettingsError
from trainer.storage.scratch import take_scratch

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
NOBODY = 65534


def mode_of(folder: Path) -> int:
    return folder.stat().st_mode & 0o7777


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder for everybody, as /tmp is."""
    (folder := tmp_path / "shared").mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.mark.parametrize("place", ["/proc/self/x", "/tmp/" + "x" * 300])
def test_where_no_folder_can_be_made_is_a_wrong_setting(place: str) -> None:
    with pytest.raises(SettingsError, match=r"QLORA_SCRATCH_DIR=/.*: no folder can be made there"):
        take_scratch(Path(place))


def test_it_is_made_for_one_user(shared: Path) -> None:
    take_scratch(shared / "qlora")
    assert mode_of(shared / "qlora") == 0o700


def test_one_that_others_could_read_is_closed(shared: Path) -> None:
    (shared / "qlora").mkdir()
    (shared / "qlora").chmod(0o755)
    take_scratch(shared / "qlora")
    assert mode_of(shared / "qlora") == 0o700


@as_root
def test_one_that_another_user_made_first_is_refused(shared: Path) -> None:
    (shared / "qlora").mkdir()
    os.chown(shared / "qlora", NOBODY, NOBODY)
    with pytest.raises(SettingsError, match=r"qlora belongs to user 65534; choose a folder of yo"):
        take_scratch(shared / "qlora")


@as_root
def test_a_link_that_another_user_made_is_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (shared / "qlora").symlink_to(tmp_path / "mine")
    os.chown(shared / "qlora", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(SettingsError, match="belongs to user 65534"):
        take_scratch(shared / "qlora")


@as_root
def test_what_another_user_put_into_one_for_everybody_is_refused(shared: Path) -> None:
    (shared / "runs").mkdir()
    take_scratch(shared)
    shared.chmod(0o1777)  # as a volume is mounted
    os.chown(shared / "runs", NOBODY, NOBODY)
    with pytest.raises(SettingsError, match="runs belongs to user 65534"):
        take_scratch(shared)


def test_a_place_that_cannot_be_made_is_left_to_whoever_writes_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    take_scratch(tmp_path / "file" / "below")
    take_scratch(tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""
