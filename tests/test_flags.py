"""`--help` shows what is set first, `--help-all` everything in groups; a shell completes both."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from support.jobs import ROOT

from trainer.flags import FIRST, GROUPS, SHOWN_VERSIONS, EnvFileOption
from trainer.settings import options


def said(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "entrypoint.py", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def flags_in(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("  --")]


def test_help_begins_with_the_settings_that_people_set_first() -> None:
    shown = flags_in(said("train", "--help"))
    first = [f"--{name.replace('_', '-')}" for name in FIRST]
    assert shown == [*first, "--help-all", "--env-file", "--help"]


def test_help_all_has_every_setting_once_and_in_its_group() -> None:
    text = said("--help-all")  # of train, which is the command when none is named
    shown = flags_in(text)
    assert sorted(shown) == sorted(
        [*(one.flag for one in options()), "--help-all", "--env-file", "--help"]
    )
    assert len(GROUPS) == 9
    places = [text.index(f"{group.__name__.removesuffix('Settings')}: ") for group in GROUPS]
    assert places == sorted(places)
    assert places[0] < text.index("--max-length") < places[1]


def test_the_version_says_which_libraries_are_there() -> None:
    text = said("--version")
    for library in SHOWN_VERSIONS:
        assert f"{library} {version(library)}" in text


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("qlora-job ", 1, ["plain,train", "plain,ask"]),
        ("qlora-job train --lora", 2, ["plain,--lora-r", "plain,--lora-alpha"]),
        ("qlora-job train --recipe f", 3, ["plain,facts"]),
        ("qlora-job train --data-uri d", 3, ["file,d"]),
    ],
)
def test_a_shell_completes(words: str, number: int, expected: list[str]) -> None:
    found = said(_ENTRYPOINT_PY_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
    assert set(expected) <= set(found.splitlines())


def test_what_is_no_setting_in_an_env_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.env").write_text("PYTHONPATH=/evil\nPATH=/evil\nQLORA_LORA_R=8\n")
    before, file = dict(os.environ), str(tmp_path / "my.env")
    EnvFileOption().process_value(click.Context(click.Command("train")), file)
    assert capsys.readouterr().err == (
        f"{file}: PYTHONPATH, PATH left out: no setting; set it in the shell\n"
    )
    assert {k: v for k, v in os.environ.items() if before.get(k) != v} == {"QLORA_LORA_R": "8"}
    del os.environ["QLORA_LORA_R"]


def test_an_env_file_may_stand_before_the_command(tmp_path: Path) -> None:
    (tmp_path / "my.env").write_text("# nothing\n")
    assert said("--env-file", str(tmp_path / "my.env"), "plan", "--help") == said("plan", "--help")
    alone = ["--env-file", "my.env", "--lora-r", "4"]  # of `train`
    assert EnvFileOption.behind_command(alone, ["plan"]) == alone
