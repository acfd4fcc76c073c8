"""The figures that Prometheus reads, asked of a run while it trains."""

import math
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.jobs import run_here, start, variables, wait_for_step
from support.network import unused_port

from trainer.errors import SettingsError
from trainer.monitoring import prometheus
from trainer.monitoring.prometheus import Metrics
from trainer.settings import Settings

ON_A_CPU = {  # a GPU adds qlora_gpu_memory_bytes
    "qlora_run_info",
    "qlora_step",
    "qlora_steps",
    "qlora_loss",
    "qlora_tokens_per_second",
    "qlora_seconds_left",
    "qlora_checkpoint_age_seconds",
}


def scrape(port: int) -> dict[str, Any]:
    """Each sample of /metrics by its name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {sample.name: sample for family in families for sample in family.samples}


def test_a_run_tells_how_far_it_is(tmp_path: Path) -> None:
    port = unused_port()
    process = start(tmp_path, METRICS_PORT=str(port), MAX_STEPS="500", CHECKPOINT_EVERY="2")
    try:
        wait_for_step(process, 3)
        found = scrape(port)
    finally:
        process.kill()
        process.communicate()
    assert {name for name in found if name.startswith("qlora_")} >= ON_A_CPU
    assert found["qlora_step"].value >= 3
    assert found["qlora_steps"].value == 500
    assert math.isfinite(found["qlora_loss"].value) and found["qlora_loss"].value > 0
    assert found["qlora_tokens_per_second"].value > 0
    assert found["qlora_seconds_left"].value > 0
    assert 0 <= found["qlora_checkpoint_age_seconds"].value < 60
    assert found["qlora_run_info"].labels["base_model"] == "builtin:tiny"


def test_what_is_not_known_yet_is_absent_and_nothing_is_served_afterwards(tmp_path: Path) -> None:
    port = unused_port()
    settings = Settings.read({}, variables(tmp_path, METRICS_PORT=str(port)))
    with Metrics(settings):
        assert [name for name in scrape(port) if name.startswith("qlora_")] == ["qlora_run_info"]
    with pytest.raises(OSError):
        scrape(port)


def test_figures_are_served_on_the_address_that_is_named(tmp_path: Path) -> None:
    port = unused_port()
    here = variables(tmp_path, METRICS_PORT=str(port), METRICS_ADDRESS="127.0.0.2")
    with Metrics(Settings.read({}, here)), pytest.raises(OSError):
        scrape(port)
    with pytest.raises(SettingsError, match="QLORA_METRICS_ADDRESS='here' is no IP address"):
        Settings.read({}, here | {"QLORA_METRICS_ADDRESS": "here"})
    elsewhere = Settings.read({}, here | {"QLORA_METRICS_ADDRESS": "192.0.2.1"})
    with (
        pytest.raises(SettingsError, match=r"QLORA_METRICS_ADDRESS=192\.0\.2\.1"),
        Metrics(elsewhere),
    ):
        pass


def test_who_connects_and_asks_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prometheus, "SILENCE_S", 0.2)
    port = unused_port()
    with (
        Metrics(Settings.read({}, variables(tmp_path, METRICS_PORT=str(port)))),
        socket.create_connection(("127.0.0.1", port), timeout=60) as silent,
    ):
        assert silent.recv(1) == b""  # its end
        assert "qlora_run_info" in scrape(port)
    assert capfd.readouterr().err == ""


def test_a_port_in_use_ends_the_run_at_its_start_with_a_sentence(tmp_path: Path) -> None:
    port = unused_port()
    settings = Settings.read({}, variables(tmp_path, METRICS_PORT=str(port)))
    with Metrics(settings), pytest.raises(SettingsError) as caught:
        run_here(tmp_path, METRICS_PORT=str(port))
    assert str(caught.value).startswith(f"QLORA_METRICS_PORT={port}: Address already in use")
