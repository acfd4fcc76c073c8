"""How a bucket is reached, and that its secrets stay secret."""

import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support.buckets import over_http, over_tls
from support.one_answer import use_endpoint

from trainer.errors import NotAllowedError, SettingsError, UnreachableError
from trainer.storage import fetch, open_store
from trainer.storage.s3 import connection
from trainer.storage.s3.store import BucketStore


def test_an_endpoint_that_is_away_is_tried_until_the_time_is_over_and_keeps_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_endpoint(monkeypatch, "http://user:pass-word@localhost:1")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(UnreachableError, match=r"http://localhost:1 .*EndpointConnectionError") as e,
    ):
        open_store("s3://data/", retry_minutes=0.02).list()
    assert "trying again, for" in caplog.text
    assert re.search(r"tried for \d\.\d seconds", str(e.value))
    assert "pass-word" not in caplog.text + str(e.value)
    assert e.value.__context__ is None


def test_an_endpoint_that_is_no_url_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, "user:pass-word@localhost")
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL_S3 is not a URL") as caught:
        open_store("s3://data/", retry_minutes=0)
    assert "pass-word" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_profile_that_does_not_exist_is_a_settings_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match="ProfileNotFound"):
        open_store("s3://data/", retry_minutes=15)


@pytest.mark.s3
@over_http
def test_a_wrong_key_is_not_allowed_and_not_shown(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(NotAllowedError, match=r"SignatureDoesNotMatch.*check the credentials") as e:
        fetch(f"s3://{bucket.name}/", tmp_path, retry_minutes=15)
    assert "wrong-secret" not in str(e.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobodys-id")
    with pytest.raises(NotAllowedError, match="InvalidAccessKeyId") as e:
        open_store(f"s3://{bucket.name}/", retry_minutes=15).probe()
    assert "nobodys-id" not in str(e.value)


@pytest.mark.s3
@over_tls
def test_an_unknown_ca_is_unreachable_at_once(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"SSL: CERTIFICATE_VERIFY_FAILED\); check AWS_CA"):
        open_store(f"s3://{bucket.name}/", retry_minutes=15).probe()
    assert time.monotonic() - started < 120  # of 15 minutes


@pytest.mark.s3
def test_slow_down_is_waited_out(faults: Any, spoiled: BucketStore) -> None:
    faults.add(f"PUT /{faults.bucket.name}/out/a", "slowdown", times=5)
    assert spoiled.write("a", b"hello")
    assert spoiled.read("a") == b"hello"


@pytest.mark.s3
def test_slow_down_beyond_the_retry_time_is_unreachable(faults: Any) -> None:
    faults.add(f"GET /{faults.bucket.name}", "slowdown", times=1000)
    store = BucketStore(faults.bucket.name, retry_minutes=0.02)
    with pytest.raises(UnreachableError, match=r"SlowDown \(503\), tried for [\d.]+ seconds"):
        store.list()


@pytest.mark.s3
def test_a_server_that_hangs_is_given_up_after_the_timeout(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.3)
    faults.add(f"GET /{faults.bucket.name}", "hang", times=10, s=5)
    with pytest.raises(UnreachableError, match="ReadTimeoutError"):
        BucketStore(faults.bucket.name, retry_minutes=0).list()
