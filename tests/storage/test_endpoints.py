"""No request goes where clouds hand out credentials."""

import socket
from typing import Any

import pytest
from support.one_answer import use_endpoint

from trainer.errors import SettingsError
from trainer.storage import open_store
from trainer.storage.endpoints import refuse_link_local


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2:80",
        "2852039166",  # the first one, as one number and as three spellings more
        "0xa9fea9fe",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[fe80::1]:9000",
        "user:pass-word@169.254.169.254",
    ],
)
def test_an_endpoint_at_a_link_local_address_is_refused(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_endpoint(monkeypatch, f"http://{host}")
    with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL_S3: .* is the link-local") as caught:
        open_store("s3://data/", retry_minutes=15)
    assert "pass-word" not in str(caught.value)


def test_a_name_for_a_link_local_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("169.254.169.254" if host == "s3.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(SettingsError, match=r"s3\.example is the link-local address 169\.254"):
        refuse_link_local("HF_ENDPOINT", "https://s3.example/path")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]/", "http://no.such.invalid/"])
def test_any_other_address_is_allowed(url: str) -> None:
    refuse_link_local("AWS_ENDPOINT_URL_S3", url)
