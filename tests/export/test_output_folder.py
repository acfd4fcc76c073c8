"""A folder that is written is complete or absent, and never takes the place of another."""

from pathlib import Path

import pytest

from trainer.errors import DoesNotFitError, SettingsError
from trainer.export.output_folder import complete_or_absent


def test_what_was_written_is_there_when_it_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "output"
    with complete_or_absent(output, 0) as folder:
        (folder / "file").write_text("whole")
        assert not output.exists()
        assert folder.stat().st_mode & 0o777 == 0o700  # where others write, none puts a link
    assert output.stat().st_mode == tmp_path.joinpath("deep").stat().st_mode
    assert [p.name for p in output.parent.iterdir()] == ["output"]
    assert (output / "file").read_text() == "whole"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), complete_or_absent(tmp_path / "output", 0) as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with complete_or_absent(tmp_path / "output", 0) as folder:
        (folder / "file").write_text("whole")
    assert (tmp_path / "output" / "file").exists()


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SettingsError, match="is there already"), complete_or_absent(tmp_path, 0):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    with complete_or_absent(tmp_path / "output", 0) as folder:
        name = folder.name
    (tmp_path / "output").rmdir()
    (tmp_path / name).mkdir()
    (tmp_path / name / "stray").write_text("half")
    for mine in ("output.partial", "output.partial-0123", "another" + name):
        (tmp_path / mine).mkdir()
    with complete_or_absent(tmp_path / "output", 0):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {
        *("output", "output.partial", "output.partial-0123", "another" + name)
    }
    assert not list((tmp_path / "output").iterdir())


def test_the_folder_that_one_is_in_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for here in (Path(), tmp_path):
        with (
            pytest.raises(SettingsError, match="is the folder you are in"),
            complete_or_absent(here, 0),
        ):
            pass


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(DoesNotFitError, match=r"needs 1000000.0 GB, its disk has \d+\.\d GB left"),
        complete_or_absent(tmp_path / "output", 10**15),
    ):
        raise AssertionError("it began")
    assert not list(tmp_path.iterdir())
