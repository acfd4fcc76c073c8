"""What a server says is named, and decides whether it helps to start again."""

import os
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import JobError, NotAllowedError, SettingsError, UnreachableError
from trainer.storage import fetch, open_store


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", [b"<html></html>", b"<!doctype html><html><br></html>"])
def test_a_console_port_is_not_an_empty_bucket(
    answer: dict[str, Any], body: bytes, status: int
) -> None:
    answer.update(status=status, body=body, headers={"Content-Type": "text/html"})
    store = open_store("s3://data/", retry_minutes=15)
    with pytest.raises(SettingsError, match=r"answers with a web page.*set AWS_ENDPOINT_URL_S3"):
        store.list()
    with pytest.raises(SettingsError, match="answers with a web page"):
        store.probe()


@pytest.mark.parametrize("status", [301, 400])
def test_a_wrong_region_names_the_right_one(answer: dict[str, Any], status: int) -> None:
    answer.update(status=status, headers={"x-amz-bucket-region": "eu-west-1"})
    with pytest.raises(SettingsError, match="set AWS_DEFAULT_REGION to eu-west-1"):
        open_store("s3://data/", retry_minutes=15).probe()


def test_a_malformed_authorization_names_the_right_region(answer: dict[str, Any]) -> None:
    code = b"<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>"
    answer.update(status=400, body=b"<Error>" + code + b"</Error>")
    with pytest.raises(SettingsError, match=r"AuthorizationHeaderMalformed.*to eu-west-1"):
        fetch("s3://data/", Path("unused"), retry_minutes=15)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ExpiredToken", 400, NotAllowedError),
        ("RequestTimeTooSkewed", 403, NotAllowedError),
        ("NotImplemented", 501, JobError),
        ("SlowDown", 503, UnreachableError),
        ("BadDigest", 400, UnreachableError),
        ("ConcurrentModification", 409, UnreachableError),
    ],
)
def test_an_error_code_is_named_and_decides_the_type(
    answer: dict[str, Any], code: str, status: int, kind: type[JobError]
) -> None:
    answer.update(status=status, body=f"<Error><Code>{code}</Code></Error>".encode())
    with pytest.raises(JobError, match=f"s3://data/.*{code}") as caught:
        open_store("s3://data/", retry_minutes=0).list()
    assert type(caught.value) is kind


def test_without_credentials_it_is_not_allowed(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(NotAllowedError, match=r"NoCredentialsError.*set AWS_ACCESS_KEY_ID"):
        open_store("s3://data/", retry_minutes=15).list()


def test_tls_to_a_port_without_tls_fails_at_once(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint.replace("http:", "https:"))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with pytest.raises(UnreachableError, match=r"TLS with .* failed \(SSL: \w+\)"):
        open_store("s3://data/", retry_minutes=15).list()


def test_a_ca_bundle_that_is_missing_is_named(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint.replace("http:", "https:"))
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(UnreachableError, match="check AWS_CA_BUNDLE"):
        open_store("s3://data/", retry_minutes=15).list()
