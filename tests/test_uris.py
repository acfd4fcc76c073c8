"""URIs: which store they name, what is wrong with them, and how they may be published."""

from pathlib import Path

import pytest

from trainer.uris import FORMS, SCHEMES, normal, publishable_uri, scheme_of, uri_faults


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [("s3://bucket/x", "s3"), ("gs://bucket/x", None), ("s3:/bucket", None), ("my/folder", None)],
)
def test_a_uri_names_a_store_that_there_is_or_none(uri: str, scheme: str | None) -> None:
    assert scheme_of(uri) == scheme


def test_each_scheme_is_well_formed_in_its_own_words() -> None:
    for name, scheme in SCHEMES.items():
        assert scheme.form.startswith(f"{name}://")
        assert not list(uri_faults("X", scheme.form))
        assert scheme.form in FORMS


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3:/bucket/x", "write it as s3://bucket/prefix/"),
        ("gs://bucket/x", "only folders and s3:// are supported"),
        ("s3://UPPER/x", "'UPPER' is not a bucket name"),
        ("s3://me:secret@UPPER/x", "'UPPER' is not a bucket name"),
    ],
)
def test_a_fault_is_one_sentence_without_the_password(uri: str, words: str) -> None:
    (fault,) = uri_faults("QLORA_DATA_URI", uri)
    assert fault.startswith("QLORA_DATA_URI=")
    assert words in fault
    assert "secret" not in fault


@pytest.mark.parametrize("folder", ["", "data", "../data", "C:data", "a:b"])
def test_a_folder_has_no_faults(folder: str) -> None:
    assert not list(uri_faults("QLORA_DATA_URI", folder))


def test_capitals_of_a_scheme_and_the_home_are_understood() -> None:
    assert normal("S3://Bucket/Docs/") == "s3://Bucket/Docs/"
    assert normal("~/model") == f"{Path.home()}/model"
    assert normal("GS://x") == "GS://x"


def test_what_is_published_holds_no_password_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    assert publishable_uri("https://me:pass@host/x") == "https://host/x"
    assert publishable_uri(str(tmp_path / "notes")) == "notes"
    assert publishable_uri("owner/name") == "owner/name"
