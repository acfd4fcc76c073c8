"""URIs: which store they name, what is wrong with them, and how they may be published."""

from pathlib import Path

import pytest

from trainer.errors import SettingsError
from trainer.uris import (
    SCHEMES,
    in_lower_case,
    is_bucket_uri,
    is_meant_as_bucket_uri,
    publishable_uri,
    split_bucket_uri,
    uri_faults,
)


@pytest.mark.parametrize(
    ("text", "is_one", "is_meant"),
    [
        ("s3://bucket/x", True, True),
        ("s3:/bucket", False, True),
        ("gs://bucket/x", False, False),
        ("my/folder", False, False),
        ("s3", False, False),
    ],
)
def test_a_uri_names_a_bucket_or_is_meant_to(text: str, is_one: bool, is_meant: bool) -> None:
    assert (is_bucket_uri(text), is_meant_as_bucket_uri(text)) == (is_one, is_meant)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_split_into_bucket_and_key(scheme: str) -> None:
    uri = f"{scheme}://bucket/a/b\nc"
    assert split_bucket_uri(uri) == (scheme, "bucket", "a/b\nc")
    assert split_bucket_uri(f"{scheme}://bucket") == (scheme, "bucket", "")
    assert not list(uri_faults("X", uri))
    with pytest.raises(SettingsError, match=f"is no {scheme}://bucket/prefix/; correct the URI"):
        split_bucket_uri("other://bucket/x")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3:/bucket/x", "write it as s3://bucket/prefix/"),
        ("gs://bucket/x", "only folders and s3:// are supported"),
        ("file:///data/faq", "write the folder as /data/faq"),
        ("s3://", "names no bucket; write s3://bucket/prefix/"),
        ("s3:///x", "names no bucket"),
        ("s3://me:secret@/x", "names no bucket"),
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


def test_capitals_of_a_scheme_are_understood() -> None:
    assert in_lower_case("S3://Bucket/Docs/") == "s3://Bucket/Docs/"
    assert in_lower_case("My/Folder") == "My/Folder"


def test_what_is_published_holds_no_password_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    assert publishable_uri("https://me:pass@host/x") == "https://host/x"
    assert publishable_uri(str(tmp_path / "notes")) == "notes"
    assert publishable_uri("owner/name") == "owner/name"
