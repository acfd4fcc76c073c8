"""The command: wrong usage is one sentence, and `--help` is cheap."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import ROOT, run_command


def test_wrong_settings_end_in_2_before_anything_is_loaded(tmp_path: Path) -> None:
    failed = run_command(tmp_path, LORA_R="0", EPOCHS="x", LORA_RR="1")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    for words in ("LORA_R=0", "EPOCHS='x'", "QLORA_LORA_RR is not a setting"):
        assert words in failed.stderr
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lora-rr", "8"], "--lora-r"),
        (["trian"], "Did you mean 'train'?"),
        (["train", "data", "out"], "unexpected extra arguments (data out)"),
        (["ask", "Why?"], "Missing option '--adapter'"),
        (["--epochs"], "'--epochs' requires an argument"),
    ],
)
def test_a_wrong_command_line_is_2_in_one_sentence(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    failed = run_command(tmp_path, *arguments)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    assert words in failed.stderr and "--help` shows" in failed.stderr


def test_an_empty_question_is_a_sentence(tmp_path: Path) -> None:
    failed = run_command(tmp_path, "ask", "--adapter", str(tmp_path), "")
    assert failed.returncode == 2
    assert failed.stderr == "error: the question is empty; leave it out for a conversation\n"


def test_the_exit_code_is_that_of_the_error(tmp_path: Path) -> None:
    failed = run_command(tmp_path, DATA_URI=str(tmp_path / "absent"))
    assert failed.returncode == 10
    assert "Traceback" not in failed.stderr
    assert failed.stderr.startswith("error: ")


def test_help_does_not_pay_for_torch() -> None:
    script = (
        "import sys; sys.argv = ['entrypoint.py', 'train', '--help-all']\n"
        "from trainer.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers', 'boto3'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--lora-r" in done.stdout
