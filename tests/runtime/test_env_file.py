"""A file of settings: what is written is what our reader, docker and Compose take for the same."""

import os
from pathlib import Path

import pytest

from trainer.errors import SettingsError
from trainer.runtime.env_file import load_env_file, read_env_file, write_env_file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    values = {"A": "s3://b/c/", "B": "/my folder/$x #1", "C": 'a"b\\c', "D": "a=b"}
    write_env_file(tmp_path / "x.env", values, ["A comment", "of two lines"])
    assert read_env_file(tmp_path / "x.env") == values
    assert "A=s3://b/c/\n" in (tmp_path / "x.env").read_text()  # docker keeps quotes


def test_what_people_write_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text("\ufeff\n  # no\nexport A=1\n B = 2\n".replace(" B = 2", 'B="2"'))
    assert read_env_file(file) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"A=1\nfoo\n", "x.env:2: this line is not KEY=VALUE"),
        (b"A = 1\n", "x.env:1: this line is not KEY=VALUE, without spaces"),
        (b"HF_TOKEN: hf_secret=\n", "x.env:1: this line is not KEY=VALUE"),
        (b"A=1\0\n", "x.env:1: this line is not KEY=VALUE"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"#" * 2**20 + b"\n", "more than a MiB"),
        (None, "No such file"),
    ],
)
def test_what_is_no_such_file_is_told_with_its_line(
    text: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "x.env").write_bytes(text)
    with pytest.raises(SettingsError, match=sentence):
        read_env_file(tmp_path / "x.env")


@pytest.mark.parametrize("value", ["it's", "two\nlines"])
def test_what_no_file_carries_is_not_written(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="rename it"):
        write_env_file(tmp_path / "x.env", {"A": value})
    assert not (tmp_path / "x.env").exists()


def test_what_is_set_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env_file(tmp_path / "x.env", {"QLORA_A": "file", "QLORA_B": "file"})
    monkeypatch.setenv("QLORA_A", "set")
    monkeypatch.setenv("QLORA_B", "")  # as good as unset
    load_env_file(tmp_path / "x.env")
    assert (os.environ["QLORA_A"], os.environ["QLORA_B"]) == ("set", "file")


def test_what_a_shell_gives_for_a_command_is_read() -> None:
    reads, writes = os.pipe()
    os.write(writes, b"QLORA_A=1\n")
    os.close(writes)
    assert read_env_file(Path(f"/dev/fd/{reads}")) == {"QLORA_A": "1"}
    os.close(reads)


def test_what_decides_which_code_runs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = [
        *("PATH", "PYTHONPATH", "LD_PRELOAD", "AWS_CONFIG_FILE", "WANDB__EXECUTABLE"),
        *("GCONV_PATH", "PYTHONSTARTUP", "CUDA_INJECTION64_PATH", "OMP_TOOL_LIBRARIES"),
    ]
    said = {"AWS_ENDPOINT_URL_S3": "http://a", "HF_TOKEN": "b", "https_proxy": "http://c"}
    for name in (*code, *said):
        monkeypatch.delenv(name, raising=False)
    write_env_file(tmp_path / "x.env", dict.fromkeys(code, "/evil") | said)
    assert load_env_file(tmp_path / "x.env") == code
    assert not [name for name in code if name in os.environ]
    assert {name: os.environ.pop(name) for name in said} == said
