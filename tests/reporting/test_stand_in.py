"""What would fail after the training fails before it, and what was tried leaves nothing."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import stand_in_hub
from support.jobs import run_here, write_records

from trainer import job
from trainer.errors import JobError, NotAllowedError, RejectedError, SettingsError
from trainer.models import hub
from trainer.reporting import run_files
from trainer.reporting.stand_in import before_training


@pytest.fixture(autouse=True)
def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any) -> None:
        pytest.fail("it trained")

    monkeypatch.setattr(job, "_train", train)


def test_a_report_that_cannot_be_written_ends_the_run_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "CURVES", "no\0name")
    with pytest.raises(SettingsError, match=r"cannot be written \(.*nothing is trained"):
        run_here(tmp_path)


def test_a_secret_in_the_data_ends_the_run_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCanaryCanary")
    records = [{"question": f"Who is {n}?", "answer": "hf_canaryCanaryCanary"} for n in range(40)]
    write_records(tmp_path / "data" / "questions.jsonl", records)
    with pytest.raises(RejectedError, match="holds a secret of this machine"):
        run_here(tmp_path)


def test_a_latest_json_that_cannot_be_moved_ends_the_run_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "out" / "latest.json").mkdir(parents=True)
    with pytest.raises((JobError, OSError), match=r"latest\.json"):
        run_here(tmp_path)


def test_a_token_that_may_not_write_ends_the_run_before_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stand_in_hub.running() as there:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", there.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
        hub.check_push("owner/name")
        there.answer = stand_in_hub.UNKNOWN
        hub.check_push("owner/name")  # is made with the first push
        there.answer = stand_in_hub.WRONG_TOKEN
        with pytest.raises(NotAllowedError, match=r"owner/name: the hub does not let this"):
            hub.check_push("owner/name")
    hub.check_push("owner/name")  # nobody answers now: that passes


def save_tensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.ones(200)}, folder / "a.safetensors")


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {f"word {n}": n for n in range(200)}
    Tokenizer(WordLevel(words, unk_token="word 0")).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("save", [save_tensors, save_tokenizer])
def test_a_full_disk_is_no_fault_of_the_base_models_files(
    save: Callable[[Path], None], tmp_path: Path
) -> None:
    """Both libraries say it in types of their own; the command tells all alike."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(Exception, match="os error") as found, before_training():
            save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not isinstance(found.value, SettingsError)
