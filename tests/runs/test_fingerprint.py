"""A run id belongs to one fingerprint, whoever asks for it."""

from pathlib import Path
from typing import Any

import pytest

from trainer.errors import DataError, JobError, SettingsError, UnreachableError
from trainer.runs.fingerprint import claim_run_id, fingerprint_of, released_if_refused
from trainer.runs.layout import FINGERPRINT
from trainer.settings import Settings
from trainer.storage import FolderStore


def settings(**variables: str) -> Settings:
    needed = {"QLORA_DATA_URI": "data", "QLORA_OUTPUT_URI": "out", "QLORA_BASE_MODEL": "own/Tiny"}
    return Settings.read({}, needed | {f"QLORA_{name}": v for name, v in variables.items()})


def fingerprint(of: Settings, **changes: Any) -> str:
    facts: dict[str, Any] = {
        "base": {"name": "own/Tiny", "revision": "1"},
        "precision": "bfloat16",
        "data": {"a.txt": "aa"},
        "evaluation": {},
        "libraries": {"torch": "2"},
    }
    return fingerprint_of(of, **(facts | changes))


def test_what_changes_the_result_changes_the_fingerprint_and_nothing_else_does() -> None:
    text = fingerprint(settings())
    assert fingerprint(settings(SCRATCH_DIR="/elsewhere", LOG_LEVEL="DEBUG")) == text
    others = [
        fingerprint(settings(SEED="7")),
        fingerprint(settings(), precision="float16"),
        fingerprint(settings(), data={"a.txt": "bb"}),
        fingerprint(settings(), base={"name": "own/Tiny", "revision": "2"}),
        fingerprint(settings(), evaluation={"q.jsonl": "cc"}),
        fingerprint(settings(), libraries={"torch": "3"}),
        fingerprint(settings(), preparation={"refusal": "no"}),
        fingerprint(settings(), preparation={"refusal": "never"}),
    ]
    assert len({text, *others}) == 9


def test_a_run_gets_the_same_id_again(tmp_path: Path) -> None:
    store, text = FolderStore(tmp_path), fingerprint(settings())
    run_id = claim_run_id(store, settings(), text)
    assert run_id.startswith("Tiny-")
    assert claim_run_id(store, settings(), text) == run_id
    assert store.read(f"{run_id}/{FINGERPRINT}") == text.encode()


def test_an_id_of_the_users_that_another_run_has_gets_a_suffix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, mine, other = FolderStore(tmp_path), settings(RUN_ID="mine"), settings(SEED="7")
    assert claim_run_id(store, mine, fingerprint(mine)) == "mine"
    suffixed = claim_run_id(store, mine, fingerprint(other))
    assert suffixed.startswith("mine-")
    assert "run mine was made with other settings.seed; this is run mine-" in caplog.text
    assert claim_run_id(store, mine, fingerprint(other)) == suffixed


def test_with_resume_must_it_is_refused(tmp_path: Path) -> None:
    store, mine = FolderStore(tmp_path), settings(RUN_ID="mine", RESUME="must")
    claim_run_id(store, mine, fingerprint(mine))
    other = fingerprint(mine, data={"a.txt": "bb"}, libraries={"torch": "3"})
    with pytest.raises(SettingsError, match=r"other data\.a\.txt, libraries\.torch; restore them"):
        claim_run_id(store, mine, other)


def test_a_damaged_fingerprint_is_another_run(tmp_path: Path) -> None:
    store, mine = FolderStore(tmp_path), settings(RUN_ID="mine")
    store.write(f"mine/{FINGERPRINT}", b'{"settings')
    assert claim_run_id(store, mine, fingerprint(mine)).startswith("mine-")


def test_another_way_of_training_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that mends masking or loss reaches who starts the same settings again."""
    text = fingerprint(settings())
    monkeypatch.setattr("trainer.runs.fingerprint.METHOD", 10**6)
    assert fingerprint(settings()) != text


@pytest.mark.parametrize("spoilt", [b"\xff\xfe", b"[" * 100_000, b"[]", b""])
def test_a_record_that_is_spoilt_belongs_to_another_run(tmp_path: Path, spoilt: bytes) -> None:
    store, mine = FolderStore(tmp_path), settings(RUN_ID="mine")
    store.write(f"mine/{FINGERPRINT}", spoilt)
    assert claim_run_id(store, mine, fingerprint(mine)).startswith("mine-")


@pytest.mark.parametrize(
    ("error", "made", "left"),
    [
        (DataError("refused"), [], []),
        (DataError("refused"), ["checkpoints/a"], [FINGERPRINT, "checkpoints/a"]),
        (UnreachableError("again"), [], [FINGERPRINT]),
    ],
)
def test_a_refused_start_leaves_nothing_and_another_goes_on(
    error: JobError, made: list[str], left: list[str], tmp_path: Path
) -> None:
    store, mine = FolderStore(tmp_path / "out"), settings(RUN_ID="mine")
    claim_run_id(store, mine, fingerprint(mine))
    with pytest.raises(type(error)), released_if_refused(store, "mine"):
        for name in made:
            store.write(f"mine/{name}", b"")
        raise error
    there = [stored.name.removeprefix("mine/") for stored in store.list()]
    assert sorted(there) == sorted(left)
    assert (tmp_path / "out" / "mine").exists() == (tmp_path / "out").exists() == bool(left)
