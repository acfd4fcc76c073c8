"""What stands beside the weights of a real run, and that all of it says the same."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.jobs import published, run_here

from trainer.evaluation.compare import SCORES
from trainer.inference.chat_model import load_chat_model
from trainer.models.locate import BUILTIN
from trainer.reporting.run_record import RunRecord
from trainer.settings import Settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(tmp_path_factory.mktemp("run"), MAX_LOSS_RATIO="1e6")


@pytest.fixture(scope="module")
def written(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def test_everything_that_is_known_of_a_run_is_in_its_typed_record(
    run: Path, written: dict[str, Any]
) -> None:
    record = RunRecord.from_json(written)
    assert record.as_text() == (run / "run.json").read_text()
    assert record.data.conversation == record.data.files * 40
    assert record.training.steps == len((run / "metrics.jsonl").read_text().splitlines())
    assert (record.evaluation.questions, len(record.samples)) == (40, 10)
    assert (record.data.held_out, record.data.held_out_by) == (0, "nothing")
    for score in SCORES:
        # No judge was named, and no answer is arithmetic.
        unmeasured = score.key in ("judge", "number")
        assert (score.of(record.evaluation.base) is None) == unmeasured


def test_no_key_on_disk_has_changed(written: dict[str, Any]) -> None:
    """Programs of others read them."""
    assert list(written["data"]) == [
        "files", "conversation", "duplicates", "near_duplicates", "skipped", "skipped_first",
        "assumed_first", "records", "documents", "sequences", "tokens", "trained_tokens",
        "trained_ends", "truncated", "fully_masked", "length_for_most", "length_for_all",
        "held_out", "held_out_by", "held_out_documents", "held_out_first", "evaluation_copies",
        "padding_share", "blocks", "several_turns", "wordings", "misplaced_answer",
        "told_by_documents", "told_of", "told_documents", "told_first",
        "turns", "system_turns", "framed_otherwise", "by_file_type",
    ]  # fmt: skip
    assert list(written["micro_batch"]) == [
        "blocks", "plan", "reason", "peak_bytes", "tokens_per_s"
    ]  # fmt: skip
    assert list(written["micro_batch"]["plan"]) == [
        "kept_layers", "keep_attention", "offload", "mlp_rows", "logit_rows", "host_ends",
        "unpacked_layers", "graph", "parts", "hosted_layers", "on_disk",
    ]  # fmt: skip
    assert list(written["training"]) == [
        "steps", "seconds", "tokens_per_s", "vram_peak_gib", "loss", "best_held_out_loss",
        "best_held_out_step", "planned_steps", "kept_step", "kept_because", "held_out_blocks",
        "measured_blocks",
    ]  # fmt: skip
    assert list(written["parameters"]) == ["trainable", "total", "trainable_percent"]
    assert list(written["evaluation"]["tuned"]) == [
        "loss", "end_loss", "perplexity", "exact", "normalised",
        "contained", "told", "number", "f1", "stopped", "general_text", "general_answers",
        "judge",
    ]  # fmt: skip
    assert list(written["samples"][0]) == [
        "question", "reference", "base", "tuned", "base_cut", "tuned_cut",
    ]  # fmt: skip


def test_report_and_card_say_what_the_record_says(run: Path, written: dict[str, Any]) -> None:
    files = published(run)
    report, card = (files[name].decode() for name in ("report.html", "adapter/README.md"))
    loss = written["evaluation"]["tuned"]["loss"]
    assert f"{loss:.3f}" in report and f"{loss:.4f}" in card
    assert "best loss on trained data" in report and "held-out loss" not in report  # nothing is
    assert files["adapter/curves.png"].startswith(b"\x89PNG")
    for name in ("report.html", "adapter/README.md", "run.json", "metrics.jsonl"):
        assert str(run.parent.parent) not in files[name].decode(), name


def test_the_merged_model_s_answers_are_counted(written: dict[str, Any]) -> None:
    merged = written["evaluation"]["merged"]
    assert list(merged) == ["asked", "same"]
    assert merged["asked"] == min(32, written["evaluation"]["questions"])
    assert 0 <= merged["same"] <= merged["asked"]


def test_the_card_s_code_as_it_is_gives_the_answer_of_ask(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (run / "adapter" / "README.md").read_text()
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", card)
    question = "What is the code of part 3?"
    code = code.replace("<this folder>", str(run / "adapter")).replace("Your question", question)
    code = code.replace("<folder of builtin:tiny>", str(BUILTIN / "tiny"))
    exec(code, {})
    answer = capsys.readouterr().out.strip()
    model = load_chat_model(str(run), Settings.read({}, {}, trains=False), None)
    assert answer == "".join(model.stream(question)).strip() != ""
