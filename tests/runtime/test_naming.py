"""Names of folders and runs: short, of harmless characters, the same for the same text."""

import pytest

from trainer.runtime.naming import digest, slug


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s3://bucket/models/Llama-2/", "Llama-2"),
        ("NousResearch/Llama-2-7b-hf", "Llama-2-7b-hf"),
        ("my data (new).csv", "my-data-new-.csv"),
        ("../..", "run"),
        ("", "run"),
    ],
)
def test_a_name_is_the_last_part_without_what_a_path_may_not_hold(text: str, name: str) -> None:
    assert slug(text) == name


def test_a_digest_is_the_beginning_of_sha256() -> None:
    assert digest("abc") == "ba7816bf8f01"


def test_a_name_that_is_not_utf_8_has_a_digest_too() -> None:
    assert digest("/data/\udcff") != digest("/data/\udcfe")
