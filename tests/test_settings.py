"""Settings: one definition, every fault at once, a table that cannot be old."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import SettingsError
from trainer.settings import Settings, options

NEEDED = {"QLORA_DATA_URI": "data", "QLORA_OUTPUT_URI": "out"}
ROOT = Path(__file__).parent.parent


def read(flags: dict[str, str | None] | None = None, **variables: str) -> Settings:
    return Settings.read(flags or {}, NEEDED | variables)


def test_defaults_are_those_of_the_headline() -> None:
    settings = read()
    assert (settings.lora_r, settings.lora_alpha, settings.lora_dropout) == (8, 16, 0.1)
    assert settings.target_modules == ("q_proj", "v_proj")
    assert settings.max_length == 512
    assert settings.epochs is settings.learning_rate is settings.effective_batch_size is None
    assert settings.base_model == "NousResearch/Llama-2-7b-hf"


def test_a_flag_beats_the_environment_and_the_environment_beats_the_default() -> None:
    assert read(QLORA_LORA_R="4").lora_r == 4
    assert read({"lora_r": "2"}, QLORA_LORA_R="4").lora_r == 2


def test_an_empty_variable_counts_as_unset() -> None:
    assert read(QLORA_LORA_R="", QLORA_MAX_STEPS="").lora_r == 8


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read(
            {"epochs": "many"},
            {"QLORA_LORA_R": "0", "QLORA_SCHEDULER": "round", "QLORA_LORA_RR": "8"}
            | {"qlora_seed": "1"},
        )
    message = str(caught.value)
    for words in (
        "QLORA_DATA_URI is required",
        "QLORA_OUTPUT_URI is required",
        "QLORA_LORA_R=0: needs at least 1",
        "--epochs='many' is not a number",
        "QLORA_SCHEDULER=round: needs one of cosine, linear, constant",
        "QLORA_LORA_RR is not a setting; did you mean QLORA_LORA_R?",
        "qlora_seed is not read: write it as QLORA_SEED",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("QLORA_DATA_URI", "gs://bucket/x", "only folders and s3://"),
        ("QLORA_DATA_URI", "s3://UPPER/x", "is not a bucket name"),
        ("QLORA_OUTPUT_URI", "s3:/bucket/x", "write it as s3://bucket/prefix/"),
        ("QLORA_BASE_MODEL", "s3:bucket/x", "write it as s3://bucket/prefix/"),
        ("QLORA_BASE_MODEL", "builtin:huge", "the only built-in model"),
        ("QLORA_RUN_ID", "../up", "letters, digits"),
        ("QLORA_RUN_ID", "latest.json", "the name of a file beside the runs"),
        ("QLORA_TARGET_MODULES", ",", "is empty"),
        ("QLORA_CHECKPOINT_EVERY", "0m", "more than 0"),
        ("QLORA_CHECKPOINT_EVERY", "soon", "minutes (10m) or optimizer steps"),
        ("QLORA_EPOCHS", "nan", "finite"),
        ("QLORA_LEARNING_RATE", "0", "more than 0"),
        ("QLORA_LEARNING_RATE", "inf", "finite"),
        ("QLORA_MAX_LENGTH", "8", "at least 16"),
        ("QLORA_LORA_R", "8.5", "whole number"),
        ("QLORA_LEARNING_RATE", "0,0002", "not a number or auto, without commas"),
        ("QLORA_SEED", "-1", "at least 0"),
        ("QLORA_PRECISION", "int8", "one of auto, fp16, bf16, fp32"),
        ("QLORA_MAX_FORGETTING", "-1", "at least 0"),
        ("QLORA_JUDGE_URL", "judge.example/v1", "needs the form http://host/v1"),
        ("QLORA_JUDGE_URL", "http://[", "needs the form http://host/v1"),
        ("QLORA_JUDGE_URL", "https://judge.example/v1", "QLORA_JUDGE_MODEL is required beside"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_needs(variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{variable: value})
    assert variable in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "same_as"),
    [
        ("QLORA_DATA_URI", ' "my docs"\r\n', "my docs"),
        ("QLORA_DATA_URI", "S3://bucket/Docs/", "s3://bucket/Docs/"),
        ("QLORA_LORA_R", "'8'\r", "8"),
        ("QLORA_PRECISION", "FP32", "fp32"),
        ("QLORA_LOG_LEVEL", "info", "INFO"),
        ("QLORA_S3_REQUESTER_PAYS", "TRUE", "yes"),
        ("QLORA_S3_REQUESTER_PAYS", "0", "no"),
        ("QLORA_TARGET_MODULES", "q_proj v_proj, k_proj", "q_proj,v_proj,k_proj"),
        ("QLORA_EVAL_URI", '""', ""),
        ("QLORA_BASE_MODEL", "~/model", f"{Path.home()}/model"),
    ],
)
def test_what_is_meant_is_understood(variable: str, value: str, same_as: str) -> None:
    assert read(**{variable: value}) == read(**{variable: same_as})


@pytest.mark.parametrize("value", ["s3cret-value\n", '"s3cret-value"', " s3cret-value"])
@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN"])
def test_a_secret_with_something_around_it_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} has quotes, a space or a line break") as found:
        read(**{name: value})
    assert "s3cret" not in str(found.value)
    read(**{name: "s3cret-value"})


@pytest.mark.parametrize("url", ["https://me:sk-secret@host/v1", "https://host/v1?key=sk-secret"])
def test_a_key_in_the_judge_s_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(QLORA_JUDGE_URL=url, QLORA_JUDGE_MODEL="grader")
    assert "keys belong into OPENAI_API_KEY" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_what_is_recorded_holds_no_password_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    record = str(read(QLORA_DATA_URI=str(tmp_path / "notes"), QLORA_SCRATCH_DIR="/fast").to_dict())
    assert "notes" in record
    assert str(tmp_path) not in record
    assert "/fast" not in record


def test_a_step_is_made_of_whole_micro_batches() -> None:
    with pytest.raises(SettingsError, match="multiple of QLORA_BATCH_SIZE=3"):
        read(QLORA_BATCH_SIZE="3", QLORA_EFFECTIVE_BATCH_SIZE="16")
    read(QLORA_BATCH_SIZE="3")  # then the data decides


def test_a_recipe_changes_defaults_and_what_is_set_beside_it_stays() -> None:
    facts = read(QLORA_RECIPE="facts")
    assert facts.target_modules == ("gate_proj", "up_proj", "down_proj")
    assert (facts.effective_batch_size, facts.epochs, facts.lora_r) == (4, None, 8)
    given = read(QLORA_RECIPE="Facts", QLORA_TARGET_MODULES="all-linear", QLORA_EPOCHS="2")
    assert (given.target_modules, given.epochs) == (("all-linear",), 2)
    with pytest.raises(SettingsError, match="RECIPE=fcats: needs one of none, facts, style"):
        read(QLORA_RECIPE="fcats")


def test_a_recipe_is_the_run_of_its_settings() -> None:
    written_out = read(
        QLORA_TARGET_MODULES="gate_proj,up_proj,down_proj", QLORA_EFFECTIVE_BATCH_SIZE="4"
    )
    assert read(QLORA_RECIPE="facts").changing_the_result() == written_out.changing_the_result()


def test_a_recipe_for_a_purpose_gives_way_to_whatever_is_set_be_it_a_default() -> None:
    facts = read().with_recipe("facts")
    assert facts.changing_the_result() == read(QLORA_RECIPE="facts").changing_the_result()
    assert read(QLORA_RECIPE="none").with_recipe("facts").target_modules == ("q_proj", "v_proj")
    given = read(QLORA_TARGET_MODULES="q_proj,v_proj", QLORA_BATCH_SIZE="8").with_recipe("facts")
    assert given.recipe == "facts" and given.target_modules == ("q_proj", "v_proj")
    assert given.effective_batch_size is None  # 4 is no multiple of 8


def test_where_things_lie_does_not_change_which_run_it_is() -> None:
    one, other = read(), read(QLORA_OUTPUT_URI="elsewhere", QLORA_DATA_URI="copy")
    assert one.changing_the_result() == other.changing_the_result()
    assert one.changing_the_result() != read(QLORA_SEED="1").changing_the_result()


def test_the_page_of_settings_is_made_from_the_settings() -> None:
    module: Any = _script("settings_table")
    page = (ROOT / "docs" / "settings.md").read_text()
    assert module.table() in page, "run: .venv/bin/python scripts/settings_table.py --write"
    assert all(f"`{option.env}`" in page for option in options())


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("typed", ["", " "])
def test_an_empty_choice_is_the_default(typed: str) -> None:
    set_already = {"QLORA_RECIPE": "facts"}
    assert Settings.read({"recipe": typed}, set_already, trains=False).recipe == "none"
