"""A base from the hub: every byte checked, without a network where it is there, and its refusals.

The client is the real one; the hub is a stand-in, for tests reach no network.
"""

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from support import stand_in_hub
from support.bases import load_small, settings_for

import trainer.models.hub as hub_client
from trainer.errors import (
    DataError,
    JobError,
    NotAllowedError,
    SettingsError,
    UnreachableError,
)
from trainer.models.locate import locate_base
from trainer.models.weight_files import WEIGHTS, fetch_weights

NAME = "owner/name"


def load(tmp_path: Path) -> Any:
    return load_small(settings_for(NAME, tmp_path))


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_file_that_arrives_with_a_flipped_bit_is_fetched_again(
    hub: stand_in_hub.Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    hub.spoils[name] = 1
    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    assert f"{NAME}/{name}: its bytes are not those of the digest that the hub gives" in caplog.text
    assert hub.sent.count(name) == 2
    settings = settings_for(NAME, tmp_path)
    paths = fetch_weights(locate_base(settings), settings)
    assert [path.read_bytes() for path in paths] == [hub.files[WEIGHTS]]


def test_a_file_that_is_wrong_twice_ends_the_run_with_its_name(
    hub: stand_in_hub.Hub, tmp_path: Path
) -> None:
    hub.spoils[WEIGHTS] = 2
    with pytest.raises(DataError, match=f"{NAME}/{WEIGHTS}: its bytes are not those"):
        load(tmp_path)
    load(tmp_path)  # what was wrong is not left in the cache


@pytest.mark.parametrize("way", ["switched off", "down", "gone"])
def test_a_model_that_is_in_the_cache_needs_no_hub(
    hub: stand_in_hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    load(tmp_path)
    sent = len(hub.sent)
    take_away(hub, monkeypatch, way)
    load(tmp_path)
    assert len(hub.sent) == sent


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("switched off", "is not in the cache and the hub is switched off; unset HF_HUB_OFFLINE"),
        ("down", r"the hub did not answer \(HfHubHTTPError 503\)"),
        ("gone", r"the hub did not answer \(ConnectError\)"),
    ],
)
def test_without_a_hub_and_a_cache_it_ends_with_what_can_be_done(
    hub: stand_in_hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, words: str
) -> None:
    take_away(hub, monkeypatch, way)
    with pytest.raises(UnreachableError, match=f"{NAME}: {words}"):
        load(tmp_path)


def take_away(hub: stand_in_hub.Hub, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "switched off":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif way == "down":
        hub.answer = stand_in_hub.DOWN
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


PAGE = f"https://huggingface.co/{NAME}"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (
            stand_in_hub.GATED,
            NotAllowedError,
            f"is gated; accept its terms at {PAGE} and set HF_TO",
        ),
        (stand_in_hub.UNKNOWN, NotAllowedError, f"knows no such model.* check the name at {PAGE}"),
        (stand_in_hub.WRONG_TOKEN, NotAllowedError, "does not accept the token; set HF_TOKEN"),
        ((403, {}), NotAllowedError, "or it is private; check the name"),
        (stand_in_hub.A_PAGE, SettingsError, "answers and is no hub; correct or unset HF_ENDPOINT"),
        (stand_in_hub.NO_REVISION, SettingsError, "no revision 'main'; set QLORA_BASE_REVISION"),
    ],
)
def test_a_refusal_names_the_page_or_the_variable(
    hub: stand_in_hub.Hub,
    tmp_path: Path,
    answer: tuple[int, dict[str, str]],
    error: type[JobError],
    words: str,
) -> None:
    hub.answer = answer
    with pytest.raises(error, match=f"^{NAME}: .*{words}") as caught:
        load(tmp_path)
    assert "hf_secret_of_the_test" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/na me", "owner/name/more", "owner/--"])
def test_a_name_that_no_model_can_have_is_refused(
    hub: stand_in_hub.Hub, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SettingsError, match="is no model id; set QLORA_BASE_MODEL"):
        locate_base(settings_for(name, tmp_path))


def test_a_config_or_tokenizer_of_any_size_is_not_downloaded(
    hub: stand_in_hub.Hub, tmp_path: Path
) -> None:
    hub.sizes["tokenizer.json"] = 300 << 20
    with pytest.raises(SettingsError, match=r"^owner/name: .* 300 MiB, tokenizer\.json the most"):
        load(tmp_path)
    assert hub.sent == []


def test_of_a_model_s_folders_nothing_is_downloaded(hub: stand_in_hub.Hub, tmp_path: Path) -> None:
    hub.files["logs/rows.json"] = b"{}"
    load(tmp_path)
    assert "config.json" in hub.sent and "rows.json" not in hub.sent


def test_a_model_without_a_config_is_refused(hub: stand_in_hub.Hub, tmp_path: Path) -> None:
    del hub.files["config.json"]
    with pytest.raises(SettingsError, match=r"owner/name: no config\.json there"):
        load(tmp_path)


def test_a_hub_that_takes_the_connection_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(hub_client, "SILENCE_S", 0.2)
        with pytest.raises(UnreachableError, match=r"the hub did not answer \(ReadTimeout\)"):
            hub_client.snapshot(NAME, "main", ["*.json"], retry_minutes=0)
