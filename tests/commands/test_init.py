"""`init`: four questions, a look at the data, a file."""

import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from support.jobs import QUESTIONS, write_records
from support.small_adapters import TINY

from trainer.commands import init, welcome
from trainer.errors import SettingsError
from trainer.runtime.env_file import read_env_file
from trainer.settings import Settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(init, "is_terminal", lambda: True)
    write_records(tmp_path / "faq" / "faq.jsonl", QUESTIONS)
    return tmp_path


def told(*answers: str) -> tuple[Result, Any]:
    """What is printed for `answers`, a line each, and what `ask_for_settings` gives."""
    given: list[Any] = []

    @click.command()
    def command() -> None:
        given.append(welcome.ask_for_settings(Path(".env")))

    result = CliRunner().invoke(command, input="".join(f"{answer}\n" for answer in answers))
    return result, given[0] if given else result.exception


def test_what_is_answered_is_what_a_run_reads(here: Path) -> None:
    done, file = told("faq", "builtin:tiny", "", "out", "y")
    assert file == Path(".env"), done.output
    values = read_env_file(here / ".env")
    assert values == {
        "QLORA_DATA_URI": str(here / "faq"),
        "QLORA_BASE_MODEL": "builtin:tiny",
        "QLORA_RECIPE": "facts",  # for records, unless another is named
        "QLORA_OUTPUT_URI": str(here / "out"),
    }
    Settings.read({}, values)
    assert "40 questions with answers" in done.output and "As the model sees it" in done.output
    assert "Training takes " in done.output
    assert "of questions and checks;" in " ".join(done.output.split())
    assert f"-v {here}/out:{here}/out" in done.output
    assert "k8s/submit" not in done.output  # a pod sees no folder of this machine


def test_what_cannot_be_is_asked_again(here: Path) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "a.png").write_bytes(b"\x89PNG")
    (here / ".env").write_text("A=1\n")
    answers = ["gone", "photos", "builtin:huge", "photos", "1", "faq", "4", "2", "faq/out", "out"]
    done, file = told(*answers, "n", "other.env", "n")
    assert file is None, done.output
    for sentence in (
        "gone: there is no such file or folder",
        "the only built-in model is builtin:tiny",
        "photos: no config.json there",
        "error: ",  # of the photographs
        "needs one of none, facts, style",
        "lies within QLORA_DATA_URI",
        ".env is there",
    ):
        assert sentence in done.output
    assert (here / ".env").read_text() == "A=1\n"
    assert read_env_file(here / "other.env")["QLORA_RECIPE"] == "style"


def test_a_base_in_a_folder_is_there_in_a_container_too(here: Path) -> None:
    shutil.copytree(TINY, here / "base")
    done, _ = told("faq", "base", "", "out", "n")
    assert read_env_file(here / ".env")["QLORA_BASE_MODEL"] == str(here / "base"), done.output
    assert f"-v {here}/base:{here}/base" in done.output
    assert "Write each question in three or four ways" in " ".join(done.output.split())


def test_given_up_it_writes_nothing(here: Path) -> None:
    _, error = told("faq", "1")
    assert "nothing was written" in str(error)
    assert not (here / ".env").exists()


def test_who_goes_when_it_asks_to_start_has_the_settings(here: Path) -> None:
    done, file = told("faq", "1", "", "out")
    assert file is None and ".env is written" in done.output
    assert (here / ".env").exists()


def test_buckets_are_for_compose_and_kubernetes_too() -> None:
    from trainer.runtime.device import Device

    chosen = {"data_uri": "s3://bucket/a/", "output_uri": "s3://bucket/b/"}
    chosen["base_model"] = "builtin:tiny"
    ways = "".join(init._ways(chosen, Path("x.env"), Device("cuda", "T4", (7, 5), 1)))
    assert "k8s/submit NAME --env-file x.env" in ways and "compose" in ways
    assert "--gpus all --read-only --cap-drop ALL --security-opt no-new-privileges" in ways


def test_without_a_terminal_it_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "is_terminal", lambda: False)
    with pytest.raises(SettingsError, match="set QLORA_DATA_URI"):
        init.ask_for_settings(Path(".env"))
