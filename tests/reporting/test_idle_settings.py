"""Settings that change nothing are named, and no others."""

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.models.base_model import Base
from trainer.reporting.idle_settings import idle_settings
from trainer.reporting.run_record import DataCounts
from trainer.settings import Settings

LOCAL = Base(Path(), "a-folder", "abc")
HUB = Base(Path(), "owner/name", "abc", is_from_hub=True)
QUESTIONS = DataCounts(files=1, conversation=40, records=40, blocks=5)


def idle(base: Base = LOCAL, data: DataCounts = QUESTIONS, **given: str) -> list[str]:
    given = {"DATA_URI": "data", "OUTPUT_URI": "out"} | given
    settings = Settings.read({}, {f"QLORA_{name}": value for name, value in given.items()})
    return idle_settings(settings, base, data)


def test_where_nothing_is_set_nothing_is_idle() -> None:
    assert idle() == []


@pytest.mark.parametrize(
    "given, said",
    [
        ({"TEXT_COLUMN": "body"}, "QLORA_TEXT_COLUMN has no effect: no record is text"),
        ({"EPOCHS": "3", "MAX_STEPS": "9"}, "QLORA_EPOCHS has no effect: QLORA_MAX_STEPS says"),
        ({"EFFECTIVE_BATCH_SIZE": "16"}, "16 blocks make a step, and there are 5"),
        ({"RECIPE": "style", "EPOCHS": "9"}, "QLORA_RECIPE has no effect: all that `style` sets"),
        ({"RECIPE": "style", "MAX_STEPS": "9"}, "is set otherwise, by QLORA_EPOCHS"),
        ({"BASE_REVISION": "v2"}, "QLORA_BASE_REVISION has no effect: only a base from the hub"),
        ({"S3_REQUESTER_PAYS": "yes"}, "QLORA_S3_REQUESTER_PAYS has no effect: nothing comes"),
        ({"S3_KMS_KEY": "key"}, "QLORA_S3_KMS_KEY has no effect: nothing goes to S3"),
    ],
)
def test_a_setting_without_effect_is_named_with_the_reason(
    given: dict[str, str], said: str
) -> None:
    (sentence,) = idle(**given)
    assert said in sentence


def test_columns_of_questions_are_idle_where_there_are_texts_only() -> None:
    texts = DataCounts(files=1, text=3, documents=3, blocks=5)
    assert len(idle(data=texts, QUESTION_COLUMN="q", ANSWER_COLUMN="a")) == 2
    assert len(idle(data=texts, SYSTEM_PROMPT="Be brief.")) == 1
    assert idle(data=texts, TEXT_COLUMN="body") == idle(SYSTEM_PROMPT="Be brief.") == []


def test_a_system_prompt_is_idle_where_records_have_their_own() -> None:
    def said(own: int) -> list[str]:
        return idle(data=replace(QUESTIONS, system_turns=own), SYSTEM_PROMPT="Be brief.")

    assert said(0) == []
    (some,) = said(1)
    assert some.endswith("has no effect on 1 record, which has a system turn already")
    (all_of_them,) = said(40)
    assert "every record has a system turn already; only questions that are asked" in all_of_them


@pytest.mark.parametrize(
    "given",
    [
        {"EPOCHS": "3"},
        {"QUESTION_COLUMN": "q", "ANSWER_COLUMN": "a"},
        {"RECIPE": "style"},
        {"RECIPE": "facts", "EFFECTIVE_BATCH_SIZE": "2"},
        {"EFFECTIVE_BATCH_SIZE": "5"},
        {"DATA_URI": "s3://bucket/data", "S3_REQUESTER_PAYS": "yes", "S3_KMS_KEY": "key"},
    ],
)
def test_a_setting_that_takes_effect_is_not_named(given: dict[str, str]) -> None:
    assert idle(**given) == []


def test_a_base_from_the_hub_has_revisions() -> None:
    assert idle(HUB, BASE_REVISION="v2") == []
