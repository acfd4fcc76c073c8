"""10,000 keys that nobody would choose: each is refused by name or stays below its folder."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.errors import DataError
from trainer.runtime import keys
from trainer.storage import FolderStore

LINKS = {"up": "..", "root": "/", "loop": "loop", "inside": "folder", "deep": "folder/../../.."}
ODD = [
    *("", ".", "..", "...", " ", "~", "-", "*", "%2e%2e", "%00", "C:", "nul", "etc", "passwd"),
    *("\0", "\n", "\r", "\t", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\ud800", "\\", "..\\"),
    *("\uff0e\uff0e", "\u2024\u2024", "\u2215", "\uff0f", "\u00e9", "e\u0301", "\u00df", "ss"),
    *("a" * 255, "a" * 256, "\u00fc" * 127, "\u00fc" * 128, "a", "A", ".part-a", "manifest.json"),
]
SEGMENTS = st.one_of(
    st.sampled_from([*ODD, *LINKS, "folder"]),
    st.text(max_size=4),
    st.lists(st.sampled_from(ODD), min_size=2, max_size=3).map("".join),
)
KEYS = st.one_of(
    st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join),
    st.text(max_size=10),
    st.sampled_from(["dir/" * 255 + "file", "dir/" * 255 + "files", "\U0001f40c/" * 205]),
)
FEW_KEYS = st.lists(
    st.lists(st.sampled_from(["a", "A", "\u00e9", "e\u0301", "E\u0301", "\u00df", "SS", "ss"]))
    .filter(bool)
    .map(lambda parts: "/".join(parts[:3])),
    unique=True,
    min_size=2,
    max_size=4,
)
# The same keys each time: a failure here is a fault of the change that is tested.
same_each_time = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with links that lead out of it, alone in another one."""
    folder = tmp_path_factory.mktemp("around") / "target"
    (folder / "folder").mkdir(parents=True)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    yield folder
    assert list(folder.parent.iterdir()) == [folder]


@settings(same_each_time, max_examples=10_000)
@given(key=KEYS)
def test_no_key_leads_out_of_its_folder(key: str, folder: Path) -> None:
    fault = keys.fault(key)
    try:
        path = FolderStore(folder).path(key)
    except DataError as error:
        named = fault in str(error) if fault else "leads out of" in str(error)
        assert named
        assert len(str(error).splitlines()) == 1
        return
    assert fault == ""
    real = Path(os.path.realpath(path))
    assert real.is_relative_to(folder)
    assert path == folder.joinpath(*key.split("/"))  # no two keys are one path


@settings(same_each_time, max_examples=500)
@given(names=FEW_KEYS)
def test_keys_that_would_be_one_file_are_named_and_all_others_are_files(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        keys.refuse_collisions(names, "s3://bucket/")
    except DataError as error:
        assert any(repr(name) in str(error) for name in names)
        assert are_one_somewhere(names)
        return
    assert not are_one_somewhere(names)


def are_one_somewhere(names: list[str]) -> bool:
    """Whether a disk that folds case and Unicode forms keeps fewer files, or a file is a folder."""
    kept: dict[str, object] = {}
    for name in names:
        *parents, last = (unicodedata.normalize("NFD", p).casefold() for p in name.split("/"))
        place = kept
        for parent in parents:
            place = place.setdefault(parent, {})  # type: ignore[assignment]
            if not isinstance(place, dict):
                return True
        if last in place:
            return True
        place[last] = name
    return False
