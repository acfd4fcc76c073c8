"""QLORA_HUB_REPO: the published adapter, pushed once, to a repository that is private when new.

The client is the real one; the hub is a stand-in, for tests reach no network.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import stand_in_hub
from support.jobs import published, run_command, run_here

from trainer.errors import SettingsError

REPO = "owner/faq-adapter"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[stand_in_hub.Hub]:
    with stand_in_hub.running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def test_a_push_that_fails_leaves_a_published_run_and_the_next_start_only_pushes(
    tmp_path: Path,
    hub: stand_in_hub.Hub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub.refuses = 403
    failed = run_command(tmp_path, HUB_REPO=REPO)
    assert failed.returncode == 11
    assert "set an HF_TOKEN that may write there and start the run again" in failed.stderr
    assert "hf_secret_of_the_test" not in failed.stdout + failed.stderr
    (run,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert (run / "manifest.json").is_file()

    hub.refuses = 0
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for _ in range(2):  # the second finds everything there
        caplog.clear()
        with caplog.at_level("INFO"):
            run_here(tmp_path, HUB_REPO=REPO)
        assert "is already finished" in caplog.text
        assert "pushed to" in caplog.text
    assert hub.private == {REPO: True}
    assert hub.commits == 1
    assert hub.tokens == {"Bearer hf_secret_of_the_test"}
    adapter = {
        name.removeprefix("adapter/"): data
        for name, data in published(run).items()
        if name.startswith("adapter/")
    }
    assert hub.files == adapter


def test_without_a_token_or_with_a_wrong_name_it_ends_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    done = run_command(tmp_path, HUB_REPO=REPO)
    assert (done.returncode, "needs HF_TOKEN" in done.stderr) == (2, True)
    with pytest.raises(SettingsError, match="needs the form owner/name"):
        run_here(tmp_path, HUB_REPO="just-a-name")
