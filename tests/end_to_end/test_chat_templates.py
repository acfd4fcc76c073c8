"""A whole run with another model's template: answered as trained, and scored as it says."""

import json
import shutil
from pathlib import Path

from support.chat_templates import template
from support.jobs import run_here, write_records
from transformers import AutoTokenizer

from trainer.models.locate import BUILTIN
from trainer.tokenization.record_tokenizer import question_ids, thought_end

ANSWER = "The bridge of Thornmere opens at nine."


def base_with(name: str, folder: Path) -> Path:
    """The built-in model with the chat template of this name, and its tokens as plain text."""
    shutil.copytree(BUILTIN / "tiny", folder)
    (folder / "chat_template.jinja").write_text(template(name))
    return folder


def learnt(tmp_path: Path, record: dict, **settings: str) -> tuple[dict, Path]:
    """`run.json` of a run that has one answer by heart, and its adapter."""
    questions = [f"When does bridge {n} open?" for n in range(24)]
    write_records(
        tmp_path / "data" / "questions.jsonl", [{"question": q} | record for q in questions]
    )
    write_records(tmp_path / "eval.jsonl", [{"question": "When does it open?"} | record])
    run = run_here(
        tmp_path,
        BASE_MODEL=str(base_with("qwen3", tmp_path / "base")),
        EVAL_URI=str(tmp_path / "eval.jsonl"),
        MAX_LENGTH="128",
        MAX_STEPS="60",
        TARGET_MODULES="all-linear",
        LEARNING_RATE="1e-2",
        **settings,
    )
    return json.loads((run / "run.json").read_text()), run / "adapter"


def test_perfect_answers_score_in_full_under_a_template_with_empty_thoughts(tmp_path: Path) -> None:
    record, adapter = learnt(tmp_path, {"answer": ANSWER}, SYSTEM_PROMPT="You keep the bridge.")
    assert record["evaluation"]["tuned"]["exact"] == 1.0
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    asked = tokenizer.decode(question_ids(tokenizer, "When?"))
    assert asked == tokenizer.apply_chat_template(
        [{"role": "user", "content": "When?"}], tokenize=False, add_generation_prompt=True
    )
    assert asked.count("You keep the bridge.") == asked.count("</think>") == 1
    assert thought_end(tokenizer) == ""
    assert "You keep the bridge." in (adapter / "README.md").read_text()


def test_thoughts_in_the_data_are_learnt_once_and_taken_off_the_answers(tmp_path: Path) -> None:
    thinking = f"<think>\nIt opens late.\n</think>\n\n{ANSWER}"
    record, adapter = learnt(tmp_path, {"answer": thinking})
    assert record["evaluation"]["tuned"]["exact"] == 1.0
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    asked = tokenizer.decode(question_ids(tokenizer, "When?"))
    assert asked.endswith("<|im_start|>assistant\n")
    assert thought_end(tokenizer) == "</think>"


def test_a_record_that_the_template_refuses_is_skipped_with_its_line(tmp_path: Path) -> None:
    records = [
        {
            "messages": [
                {"role": "user", "content": f"Drawer {n}?"},
                {"role": "assistant", "content": f"{n}"},
            ]
        }
        for n in range(30)
    ]
    records[7]["messages"] = records[7]["messages"][:1] * 2 + records[7]["messages"][1:]
    write_records(tmp_path / "data" / "drawers.jsonl", records)
    base = base_with("gemma", tmp_path / "base")
    run = run_here(tmp_path, BASE_MODEL=str(base), MAX_STEPS="2")
    data = json.loads((run / "run.json").read_text())["data"]
    assert data["skipped"] == 1
    assert data["skipped_first"][0].startswith("drawers.jsonl line 8: the chat template refuses it")
