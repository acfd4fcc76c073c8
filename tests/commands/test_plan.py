"""`plan`: what a run would need, in lines of text."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from trainer.cli import cli
from trainer.commands.plan import PlanRequest, plan_run
from trainer.errors import UnreachableError
from trainer.settings import Settings


def planned(*asked: str) -> dict[str, str]:
    """What is printed, by the first word of each line but the first."""
    done = CliRunner().invoke(cli, ["plan", "--base-model", "builtin:tiny", *asked])
    assert done.exit_code == 0, done.output
    return dict(line.split(maxsplit=1) for line in done.output.splitlines()[1:])


def test_plan_says_time_hours_price_and_traffic() -> None:
    asked = ["--gpu", "t4", "--workers", "4", "--tokens", "10000000", "--price", "0.5"]
    lines = planned(*asked)
    assert "not measured on this kind" in lines["speed"]
    assert "for 10,000,000 tokens on 4 GPUs without the network" in lines["time"]
    assert lines["time"].endswith("at 0.5 an hour")
    assert lines["sent"].startswith("0.39 MB of gradients by each worker in each step")
    assert "Gbit/s" in lines["network"]


@pytest.mark.parametrize("gpu", ["t4", "h200"])
def test_one_gpu_sends_nothing_and_costs_nothing_unless_a_price_is_named(gpu: str) -> None:
    lines = planned("--gpu", gpu)
    assert "GPU hours" not in lines["time"] and " an hour" not in lines["time"]
    assert not {"sent", "network"} & lines.keys()
    assert lines["fetched"].endswith("of base (16 bits), and all of the data")


def test_answers_are_predicted_where_our_own_loop_gives_them() -> None:
    assert planned("--gpu", "t4")["answers"].startswith("64 together at ")
    assert planned("--gpu", "h200")["answers"].startswith("256 together at ")
    assert "answers" not in planned("--gpu", "t4", "--engine", "stock")


def test_a_hub_out_of_reach_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    settings = Settings.read({"base_model": "owner/name"}, {}, trains=False)
    assert settings.storage_retry_minutes == 15
    with pytest.raises(UnreachableError, match=r"tried for 0\.0\d* minutes; check the network"):
        plan_run(settings, PlanRequest())
