"""Bad input ends in one sentence with the next step, the right exit code, and loses nothing."""

import json
import shutil
from pathlib import Path

import pytest
from support.jobs import ROOT, run_command, run_here, write_records

from trainer.errors import DataError, JobError, NotAllowedError, SettingsError, UnreachableError

TINY = ROOT / "trainer" / "builtin" / "tiny"


def base_without(folder: Path, *files: str, **config: object) -> Path:
    """A copy of the built-in model that lacks `files` and has `config` changed; None removes."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns(*files))
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | config
    path.write_text(json.dumps({n: v for n, v in changed.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"DATA_URI": "{here}/absent"}, DataError, ["absent", "check the path"]),
        ({"DATA_URI": "{here}/empty"}, DataError, ["empty", "no files"]),
        ({"DATA_URI": "{here}/blank"}, DataError, ["blank.txt", "is empty"]),
        ({"DATA_URI": "{here}/images"}, DataError, ["unsupported .png", ".jsonl"]),
        ({"DATA_URI": "{here}/broken"}, DataError, ["line 2", "broken JSON"]),
        ({"EVAL_URI": "{here}/absent"}, DataError, ["absent"]),
        ({"OUTPUT_URI": "{here}/data/questions.jsonl"}, SettingsError, ["questions.jsonl"]),
        ({"OUTPUT_URI": "{here}/data/results"}, SettingsError, ["within QLORA_DATA_URI", "beside"]),
        ({"OUTPUT_URI": "{here}/data/../data"}, SettingsError, ["within QLORA_DATA_URI"]),
        (
            {"OUTPUT_URI": "s3://bucket/a/b", "DATA_URI": "s3://bucket/a/"},
            SettingsError,
            ["within"],
        ),
        ({"OUTPUT_URI": "/sys/out"}, NotAllowedError, ["/sys/out", "access"]),
        ({"TARGET_MODULES": "q_proj,query"}, SettingsError, ["query", "gate_proj", "v_proj"]),
        ({"MAX_LENGTH": "4096"}, SettingsError, ["4096", "at most 1024"]),
        ({"PRECISION": "fp16"}, SettingsError, ["needs a GPU"]),
        ({"BASE_MODEL": "{here}/nowhere"}, SettingsError, ["no such folder"]),
        ({"BASE_MODEL": "{here}/empty"}, SettingsError, ["no config.json"]),
        ({"BASE_MODEL": "{here}/pickled"}, SettingsError, ["no .safetensors"]),
        ({"BASE_MODEL": "{here}/speechless"}, SettingsError, ["tokenizer.json", "config.json"]),
        ({"BASE_MODEL": "{here}/gptq"}, SettingsError, ["already, with gptq", "16-bit"]),
        ({"BASE_MODEL": "{here}/bert"}, SettingsError, ["BertForMaskedLM", "continues text"]),
        ({"BASE_MODEL": "{here}/t5"}, SettingsError, ["T5Model", "continues text"]),
        ({"BASE_MODEL": "{here}/untyped"}, SettingsError, ["a model of no type"]),
        ({"BASE_MODEL": "{here}/misfit"}, SettingsError, ["3072, 256", "(100, 256)", "belong"]),
        ({"BASE_MODEL": "{here}/pointer"}, DataError, ["model.safetensors", "git lfs pull"]),
        ({"BASE_MODEL": "not a model"}, SettingsError, ["owner/name"]),
        ({"RESUME": "must"}, SettingsError, ["no valid checkpoint"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_it_is_named_with_the_next_step(
    changes: dict[str, str], kind: type[JobError], words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "blank.txt").write_text(" \n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jsonl").write_text('{"text": "one"}\n{"text": \n')
    shutil.copytree(TINY, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    base_without(tmp_path / "speechless", "tokenizer*")
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    base_without(tmp_path / "gptq", **config)
    base_without(tmp_path / "bert", model_type="bert", architectures=["BertForMaskedLM"])
    base_without(tmp_path / "t5", model_type="t5", architectures=["T5Model"])
    base_without(tmp_path / "untyped", model_type=None)
    base_without(tmp_path / "misfit", vocab_size=100)
    pointer = base_without(tmp_path / "pointer", "*.safetensors") / "model.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    here = {name: value.format(here=tmp_path) for name, value in changes.items()}
    with pytest.raises(kind) as caught:
        run_here(tmp_path, **here)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def test_an_unreachable_bucket_is_12_and_names_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://localhost:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-value")
    with pytest.raises(UnreachableError, match="localhost:9"):
        run_here(tmp_path, OUTPUT_URI="s3://bucket/models", STORAGE_RETRY_MINUTES="0")


def test_a_scratch_folder_that_is_a_file_is_2(tmp_path: Path) -> None:
    failed = run_command(tmp_path, SCRATCH_DIR=str(write_records(tmp_path / "data" / "a.jsonl")))
    assert failed.returncode == 2
    assert "a file is in the way of a folder" in failed.stderr


def test_a_scratch_folder_that_cannot_be_written_is_11(tmp_path: Path) -> None:
    failed = run_command(tmp_path, SCRATCH_DIR="/sys/scratch")
    assert failed.returncode == 11
    assert "/sys/scratch" in failed.stderr
    assert "set QLORA_SCRATCH_DIR" in failed.stderr


def test_a_rate_far_too_high_is_14_and_publishes_nothing(tmp_path: Path) -> None:
    records = [{"text": f"{n} " * 40} for n in range(40)]
    write_records(tmp_path / "data" / "texts.jsonl", records)
    failed = run_command(
        tmp_path,
        LEARNING_RATE="1",
        TARGET_MODULES="all-linear",
        MAX_STEPS="60",
        SCHEDULER="constant",
    )
    assert failed.returncode == 14, failed.stderr
    assert "lower QLORA_LEARNING_RATE" in failed.stderr
    assert not list((tmp_path / "out").glob("*/manifest.json"))
