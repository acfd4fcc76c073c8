"""`plan`: what a run would need, in lines of text."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.architectures import CASES, config_of
from support.jobs import variables
from support.small_adapters import TINY

from trainer.cli import cli
from trainer.commands.inspect import inspect_data
from trainer.commands.look import QUESTION_TOKENS, look_at, too_little
from trainer.commands.plan import PlanRequest, plan_run
from trainer.errors import SettingsError, UnreachableError
from trainer.runtime.nf4 import NF4_BYTES
from trainer.settings import Settings


def planned(*asked: str) -> dict[str, str]:
    """What is printed, by the name of each line but the first."""
    done = CliRunner().invoke(cli, ["plan", "--base-model", "builtin:tiny", *asked])
    assert done.exit_code == 0, done.output
    return {line[:12].strip(): line[13:] for line in done.output.splitlines()[1:]}


def test_plan_says_time_hours_price_and_traffic() -> None:
    asked = ["--gpu", "t4", "--workers", "4", "--tokens", "10000000", "--price", "0.5"]
    lines = planned(*asked)
    assert "not measured on this kind" in lines["speed"]
    assert "for 10,000,000 tokens on 4 GPUs without the network" in lines["time"]
    assert "at 0.5 an hour; on top" in lines["time"]
    assert lines["sent"].startswith("0.39 MB of gradients by each worker in each step")
    assert "Gbit/s" in lines["network"]


@pytest.mark.parametrize("gpu", ["t4", "h200"])
def test_one_gpu_sends_nothing_and_costs_nothing_unless_a_price_is_named(gpu: str) -> None:
    lines = planned("--gpu", gpu)
    assert "GPU hours" not in lines["time"] and " an hour" not in lines["time"]
    assert not {"sent", "network"} & lines.keys()
    assert lines["fetched"].endswith("of base (16 bits), and all of the data")
    assert "fetched" not in planned()  # the built-in base is here


def test_answers_are_predicted_where_our_own_loop_gives_them() -> None:
    assert planned("--gpu", "t4")["answers"].startswith("64 together at ")
    assert planned("--gpu", "h200")["answers"].startswith("256 together at ")
    assert "answers" not in planned("--gpu", "t4", "--engine", "stock")


def test_experts_are_counted_in_4_bits_from_the_config_alone(tmp_path: Path) -> None:
    config_of(CASES["deepseek_v3"]).save_pretrained(tmp_path)
    lines = planned("--base-model", str(tmp_path), "--gpu", "t4", "--target-modules", "all-linear")
    values = 4 * 3 * 128 * 64  # of one layer, the other one is dense
    assert lines["experts"].startswith(f"{values * NF4_BYTES / 1e6:.2f} MB in NF4, frozen; ")
    assert f" {values // 2:,} parameters" in lines["experts"]
    assert "down_proj, gate_proj, up_proj outside of the experts" in lines["no adapter"]


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_5_text"])
def test_experts_and_states_are_trained_by_the_engine_and_answered_by_transformers(
    family: str, tmp_path: Path
) -> None:
    config_of(CASES[family]).save_pretrained(tmp_path)
    lines = planned("--base-model", str(tmp_path), "--gpu", "h200")
    assert lines["engine"].startswith("ours, ")
    assert lines["answers"].startswith("by transformers' loop")


def test_a_stream_that_fp16_does_not_hold_is_told(tmp_path: Path) -> None:
    config_of(CASES["gemma3_text-long-window"]).save_pretrained(tmp_path)
    of = {gpu: planned("--base-model", str(tmp_path), "--gpu", gpu) for gpu in ("t4", "h200")}
    assert of["t4"]["precision"].endswith("; its residual stream in float32")
    assert "float32" not in of["h200"]["precision"]
    assert of["t4"]["engine"].startswith("ours, ")


@pytest.mark.parametrize("name", ["gemma4", "gemma4_text"])
def test_a_base_that_fp16_does_not_hold_at_all_is_refused_as_a_run_is(
    name: str, tmp_path: Path
) -> None:
    config_of(CASES[name]).save_pretrained(tmp_path)
    asked = ["plan", "--base-model", str(tmp_path), "--gpu"]
    done = CliRunner().invoke(cli, [*asked, "t4"])
    assert isinstance(done.exception, SettingsError)
    assert "leave the range of fp16" in str(done.exception)
    for fits in (["h200"], ["t4", "--precision", "fp32"]):
        assert CliRunner().invoke(cli, [*asked, *fits]).exit_code == 0


def test_a_base_larger_than_the_gpu_says_what_host_memory_it_takes(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    sizes = {"num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80}
    config = LlamaConfig(hidden_size=8192, intermediate_size=28672, **sizes)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    lines = planned("--base-model", str(tmp_path), "--gpu", "t4")
    assert re.search(r"\d\d layers of the base in host memory", lines["memory"])
    host = r"3\d\.\d\d GB pinned, of a machine with 4\d\.\d\d GB free or more: "
    nodes = "g4dn.4xlarge or n1-highmem-8 or Standard_NC8as_T4_v3"
    assert re.fullmatch(host + nodes, lines["host memory"])
    disk = r"where 9\.66 GB may be pinned, \d\d\.\d\d GB, read \d+ times a step: .* at 1\.00 GB/s"
    assert re.match(disk, lines["scratch disk"])
    rows, rate = re.match(r"(\d+) together at (\d+) tokens/s", lines["answers"]).groups()
    assert int(rows) > 64 and 20 < int(rate) < 100  # 35 GB come for each token of all rows
    assert "host memory" not in planned("--gpu", "t4")


def test_a_hub_out_of_reach_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    done = CliRunner().invoke(cli, ["plan", "--base-model", "owner/name"])
    assert isinstance(done.exception, UnreachableError)
    assert re.search(r"tried for \d\.\d seconds; check the network", str(done.exception))


@pytest.fixture(scope="module")
def of_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, str]]:
    """A plan for the records of the other tests, on this machine's CPU."""
    folder = tmp_path_factory.mktemp("plan")
    asked = variables(folder, MAX_STEPS="", EPOCHS="auto", EFFECTIVE_BATCH_SIZE="auto")
    settings = Settings.read({}, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.commands.trial.TRIED_S", 0.2)
        lines = plan_run(settings, PlanRequest()).splitlines()
    return settings, dict(line.split(maxsplit=1) for line in lines)


def test_with_data_it_says_what_a_run_would_do_with_them(
    of_data: tuple[Settings, dict[str, str]],
) -> None:
    settings, lines = of_data
    data = inspect_data(settings, 0)
    tokens = round(data.schedule.epochs * data.data.blocks * settings.max_length)
    assert lines["steps"] == f"{data.steps:,}, {tokens:,} tokens in all passes"
    assert lines["read"].startswith("40 questions")
    assert lines["schedule"].startswith(f"{data.schedule.epochs:g} passes, ")
    assert re.search(
        rf"^[\d.]+ \w+ for {tokens:,} tokens, then [\d.]+ \w+ of questions and checks; "
        r"[\d.]+ \w+ in all with its start",
        lines["time"],
    )


def test_a_cpu_s_speed_is_tried(of_data: tuple[Settings, dict[str, str]]) -> None:
    _, lines = of_data
    assert "tried on this machine" in lines["speed"]
    assert float(lines["speed"].split()[0].replace(",", "")) > 10


def test_what_is_too_short_to_learn_from_is_told(tmp_path: Path) -> None:
    settings = Settings.read({}, variables(tmp_path, MAX_STEPS="2"))
    (few, one_wording) = too_little(look_at(settings), settings)
    assert re.fullmatch(
        r"each record is met [\d.]+ times, and so little data needs \d+: leave QLORA_MAX_STEPS out",
        few,
    )
    assert "three or four ways" in one_wording and "`--prepare wordings`" in one_wording
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "story.md").write_text("The fox sleeps for hours. " * 200)
    settings = Settings.read({}, variables(tmp_path))
    (alone,) = too_little(look_at(settings), settings)
    assert alone.startswith("the data holds documents alone")


def test_of_documents_that_questions_are_made_of_that_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.commands.trial.TRIED_S", 0.05)
    base = shutil.copytree(TINY, tmp_path / "tiny")
    (tmp_path / "data").mkdir()
    told = (f"The fox of village {n} sleeps for {n} hours in its den. " for n in range(200))
    (tmp_path / "data" / "story.md").write_text("".join(told))
    asked = variables(tmp_path, BASE_MODEL=str(base), MAX_STEPS="", EPOCHS="auto")
    first, *rest = plan_run(Settings.read({}, asked), PlanRequest()).splitlines()
    assert first.startswith("note         the data holds documents alone: questions")
    found = re.search(r"estimates for (\d+) questions, one for each statement in (\d+) pass", first)
    assert found and int(found[1]) >= int(found[2]) > 1
    assert not any(line.startswith(("note", "held out", "tokens")) for line in rest)
    rows = dict(line.split(maxsplit=1) for line in rest)
    blocks = -(-int(found[1]) * QUESTION_TOKENS // 64)
    assert rows["blocks"] == f"about {blocks:,} of 64 tokens"
    assert re.match(r"about \d+, [\d,]+ tokens in all passes", rows["steps"])
    # Trained and judged as questions are, not as prose.
    look = look_at(Settings.read({}, asked))
    assert look.settings.recipe == "facts" and look.schedule.epochs > 10
    assert look.afterwards.asked == min(128, int(found[1])) and look.afterwards.with_passages


def test_a_folder_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = Settings.read({}, variables(tmp_path, DATA_URI=str(tmp_path / "gone")))
    with pytest.raises(SettingsError, match="there is no such file or folder"):
        plan_run(settings, PlanRequest())
