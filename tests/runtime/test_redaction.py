"""What is hidden: secrets however they are written and wherever they are from; no other words."""

import json
from pathlib import Path

import pytest

from trainer.runtime.redaction import holds_a_secret, redact


@pytest.mark.parametrize(
    "text",
    [
        "b'<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{secret}</SessionToken>'",
        r'b\'{{\n  "SecretAccessKey" : "{secret}",\n  "Token" : "{secret}"}}\'',
        r'"{{\"AccessKeyId\": \"{secret}\"}}"',
        "{{'X-Amz-Security-Token': b'{secret}', 'a': 1}}",
        "x-amz-security-token:{secret}\nx-amz-date:1",
        "Authorization: AWS4-HMAC-SHA256 Credential={secret}/20260101/us-east-1/s3/aws4_request",
        "{{'authorization': 'Bearer {secret}'}}",
        "http://me:canary@host/",
        "http://me:with@sign-canary@host/",
    ],
)
def test_credentials_that_came_over_the_network_are_known_by_what_stands_before_them(
    text: str,
) -> None:
    assert "canary" not in redact(text.format(secret="canaryCanary/canary+0123=="), {})


@pytest.mark.parametrize(
    ("variable", "content"),
    [
        ("AWS_SHARED_CREDENTIALS_FILE", "[a]\naws_secret_access_key = {secret}\nregion = here\n"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "{secret}\n"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "{secret}"),
        ("HF_TOKEN_PATH", "{secret}\n"),
        ("NETRC", "machine api.wandb.ai\n  login user\n  password {secret}\n"),
    ],
)
def test_what_a_file_of_credentials_holds_is_hidden_and_its_path_is_not(
    variable: str, content: str, tmp_path: Path
) -> None:
    path, environ = tmp_path / "held", {variable: str(tmp_path / "held")}
    for secret in ("canary-file-1", "canary-renewed-2"):
        path.write_text(content.format(secret=secret))
        assert redact(f"{path}: {secret} is here", environ) == f"{path}: *** is here"


def test_a_secret_is_hidden_however_it_is_written() -> None:
    secret = 'canary/+"\\=:@'
    for written in (secret, repr(secret), json.dumps(secret), json.dumps(repr(secret))):
        assert "canary" not in redact(written, {"AWS_SECRET_ACCESS_KEY": secret})


def test_the_password_of_a_url_is_hidden_without_its_url() -> None:
    environ = {"HTTPS_PROXY": "http://me:canary%2Fword@host:1"}
    assert "canary" not in redact("canary/word", {"HTTPS_PROXY": "http://me:canary/word@host:1"})
    for written in ("canary/word", "canary%2Fword", "Basic bWU6Y2FuYXJ5L3dvcmQ="):
        assert redact(f"{written} at all", environ).endswith("*** at all")


@pytest.mark.parametrize(
    "text",
    [
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role",
        "QLORA_HUB_REPO=me/mine: needs HF_TOKEN, with leave to write there",
        "s3://bucket/prefix/a@b: 4 tokens; AWS_SHARED_CREDENTIALS_FILE",
        'http://localhost:9000 answered AccessDenied (403), "tokens": 1234567890123456',
    ],
)
def test_other_words_are_left_as_they_are(text: str) -> None:
    assert redact(text, {"TOKENIZERS_PARALLELISM": "true"}) == text


def test_a_count_and_a_word_of_a_setting_are_no_secrets() -> None:
    environ = {
        "OPENAI_MAX_TOKENS": "100000",
        "TOKENIZERS_PARALLELISM": "message",
        "A_TOKEN": "1234567",
    }
    assert redact('{"message": "ok", "tokens": 1000001, "n": 1234567}', environ) == (
        '{"message": "ok", "tokens": 1000001, "n": 1234567}'
    )


def test_only_what_no_ordinary_text_holds_is_a_secret_that_forbids() -> None:
    environ = {"DB_PASSWORD": "hunter2", "API_TOKEN": "canary/Canary+Canary"}
    assert not holds_a_secret(b"the word hunter2", environ)
    assert holds_a_secret(b'\xff"a canary/Canary+Canary', environ)
    assert holds_a_secret(b"as canary%2FCanary%2BCanary", environ)
