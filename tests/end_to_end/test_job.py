"""The whole job on a CPU: real NF4, real LoRA, real 8-bit AdamW, on the built-in model."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import ROOT, STEPS, adapter_bytes, published, run_command, run_here, write_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A finished run."""
    return run_here(folder)


def test_the_manifest_lists_every_published_object_with_its_digest(run: Path) -> None:
    objects = json.loads((run / "manifest.json").read_text())["objects"]
    there = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in published(run).items()
        if not name.startswith("checkpoints/") and name not in ("manifest.json", "fingerprint.json")
    }
    assert objects == there
    assert {"run.json", "report.html", "metrics.jsonl", "adapter/README.md"} < objects.keys()


def test_nothing_published_is_a_pickle_or_names_this_machine(run: Path, folder: Path) -> None:
    for name, data in published(run).items():
        assert not name.endswith((".bin", ".pt", ".pth", ".pkl")), name
        assert not data.startswith((b"\x80", b"PK")), name
        for path in (folder, ROOT, Path.home(), Path(sys.prefix)):
            assert str(path).encode() not in data, (name, path)


def test_held_out_loss_falls_and_is_recorded(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    scores = record["evaluation"]
    assert scores["tuned"]["loss"] < scores["base"]["loss"]
    assert record["training"]["steps"] == STEPS
    assert record["parameters"]["trainable"] == 4 * 2 * 8 * (256 + 256)
    assert record["inputs"][0]["name"] == "questions.jsonl"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == STEPS


def test_adapter_weights_are_float32(run: Path) -> None:
    from safetensors import safe_open

    with safe_open(run / "adapter" / "adapter_model.safetensors", "pt") as weights:
        names = weights.keys()
        assert {weights.get_slice(name).get_dtype() for name in names} == {"F32"}


def test_the_adapter_works_in_plain_peft_without_this_project(run: Path, folder: Path) -> None:
    """Same logits in a fresh process that cannot import the trainer, on the same NF4 base."""
    script = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
base, adapter, out = sys.argv[1:]
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4, dtype=torch.float32,
    device_map={"": "cpu"})
for module in model.modules():  # or bitsandbytes rounds the base once more on some CPUs
    if hasattr(module, "support_avx512bf16_for_cpu"):
        module.support_avx512bf16_for_cpu = False
model = PeftModel.from_pretrained(model, adapter).eval()
ids = tokenizer.apply_chat_template([{"role": "user", "content": "What is the code of part 3?"}],
    add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
assert "trainer" not in sys.modules
torch.save(model(ids).logits, out)
"""
    base = ROOT / "trainer" / "builtin" / "tiny"
    out = folder / "logits.pt"
    command = [sys.executable, "-c", script, str(base), str(run / "adapter"), str(out)]
    subprocess.run(command, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": ""})

    import torch

    from trainer.inference.chat_model import load_chat_model
    from trainer.settings import Settings
    from trainer.tokenization.record_tokenizer import question_ids

    settings = Settings.read({}, {"QLORA_SCRATCH_DIR": str(folder / "scratch")}, trains=False)
    bot = load_chat_model(str(run), settings, None)
    ids = torch.tensor([question_ids(bot.tokenizer, "What is the code of part 3?")])
    with torch.no_grad():
        ours = bot.model(ids).logits
    assert torch.equal(ours, torch.load(out, weights_only=True))


def test_a_finished_run_started_again_changes_nothing(run: Path, folder: Path) -> None:
    before = published(run)
    again = run_here(folder)
    assert again == run
    assert published(run) == before


def test_latest_is_named_by_the_next_start_when_a_kill_came_before(run: Path, folder: Path) -> None:
    latest = run.parent / "latest.json"
    named = json.loads(latest.read_text())
    assert named["run_id"] == run.name
    latest.unlink()
    run_here(folder)
    assert json.loads(latest.read_text()) == named


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    twin = run_here(tmp_path)
    assert adapter_bytes(twin) == adapter_bytes(run)
    assert adapter_bytes(run_here(tmp_path, SEED="7")) != adapter_bytes(run)


def test_the_end_token_is_learnt(tmp_path: Path) -> None:
    """Trained long enough on a few answers, the model gives them and stops by itself."""
    records = [
        {"question": f"What is the code of part {n}?", "answer": f"HG-{n}{n}"} for n in range(4)
    ]
    data = write_records(tmp_path / "data" / "few.jsonl", records)
    run = run_here(
        tmp_path,
        EVAL_URI=str(data),
        MAX_STEPS="100",
        TARGET_MODULES="all-linear",
        CHECKPOINT_EVERY="100",
        LEARNING_RATE="5e-3",
    )
    tuned = json.loads((run / "run.json").read_text())["evaluation"]["tuned"]
    assert tuned["stopped"] == 1
    assert tuned["exact"] == 1


def test_another_fingerprint_never_mixes_with_a_run_id(run: Path, tmp_path: Path) -> None:
    first = run_here(tmp_path, RUN_ID="mine", MAX_STEPS="2")
    before = published(first)
    second = run_here(tmp_path, RUN_ID="mine", MAX_STEPS="2", SEED="7")
    assert first.name == "mine"
    assert second.name.startswith("mine-")
    assert published(first) == before
    failed = run_command(tmp_path, RUN_ID="mine", MAX_STEPS="2", SEED="8", RESUME="must")
    assert failed.returncode == 2
    assert "settings.seed" in failed.stderr


def test_off_a_terminal_stdout_is_json_lines_only(tmp_path: Path) -> None:
    done = run_command(tmp_path, MAX_STEPS="2", LOG_FORMAT="auto")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [line for line in lines if line["message"] == "step"]
    assert [line["step"] for line in steps] == [1, 2]
    assert {"loss", "tokens_per_s", "seconds_left"} <= steps[0].keys()
    assert done.stderr == ""


def test_ask_answers_from_the_command_line_and_from_standard_input(run: Path, folder: Path) -> None:
    asked = [sys.executable, "entrypoint.py", "ask", "--adapter", str(run / "adapter")]
    environment = os.environ | {"QLORA_SCRATCH_DIR": str(folder / "scratch")}
    question = "What is the code of part 3?"
    once = subprocess.run(
        [*asked, question], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    piped = subprocess.run(
        asked, cwd=ROOT, env=environment, capture_output=True, text=True, input=f"{question}\n\n"
    )
    assert (once.returncode, once.stderr) == (0, "")
    assert once.stdout.strip()
    assert piped.stdout == once.stdout


def test_evaluate_repeats_the_figures_of_the_run(run: Path, folder: Path) -> None:
    """From the same data, of which it holds the same part out; stdout is one JSON object."""
    done = run_command(folder, "evaluate", "--adapter", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    verdict = json.loads(done.stdout)
    recorded = json.loads((run / "run.json").read_text())["evaluation"]
    assert verdict["questions"] == recorded["questions"] == len(verdict["samples"]) > 0
    for side in ("base", "tuned"):
        found, expected = (
            {name: score for name, score in scores[side].items() if score is not None}
            for scores in (verdict, recorded)
        )
        assert found == pytest.approx(expected, rel=1e-4)
    shown = run_command(folder, "evaluate", "--adapter", str(run), LOG_FORMAT="text")
    assert f"loss on this data{recorded['base']['loss']:>15.4f}" in shown.stdout


def test_evaluate_takes_an_adapter_of_another_tool(run: Path, folder: Path, tmp_path: Path) -> None:
    """Weights and config alone, as peft writes them: the base's tokenizer serves."""
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    config["revision"] = None
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    shutil.copy(run / "adapter" / "adapter_model.safetensors", tmp_path)
    evaluated = ["evaluate", "--adapter", str(tmp_path), "--eval-uri", str(folder / "data")]
    done = run_command(tmp_path, *evaluated, DATA_URI="")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["questions"] == 40


def test_evaluate_needs_data(run: Path, folder: Path) -> None:
    done = run_command(folder, "evaluate", "--adapter", str(run), DATA_URI="")
    assert done.returncode == 2
    assert "--eval-uri" in done.stderr
