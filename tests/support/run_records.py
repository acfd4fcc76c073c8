"""A run's record and its steps, small and with hostile text in it."""

from typing import Any

from trainer.reporting.run_record import RunRecord

HOSTILE = "<script>alert(1)</script>|\n"
RECORD: dict[str, Any] = {
    "run_id": "run",
    "version": "0",
    "finished": 0.0,
    "warnings": [HOSTILE],
    "rejected": [],
    "settings": {
        "data_uri": "data",
        "eval_uri": "",
        "max_length": 64,
        "target_modules": ["q_proj"],
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "scheduler": "cosine",
        "seed": 1,
    },
    "base": {"name": "owner/base", "revision": "main"},
    "inputs": [{"name": HOSTILE, "size": 3, "sha256": "0" * 64}],
    "data": {
        "files": 1,
        "conversation": 9,
        "duplicates": 0,
        "near_duplicates": 0,
        "skipped": 1,
        "skipped_first": [HOSTILE],
        "assumed_first": [],
        "records": 9,
        "truncated": 0,
        "fully_masked": 0,
        "padding_share": 0.25,
        "trained_ends": 9,
        "tokens": 90,
        "trained_tokens": 50,
        "blocks": 2,
        "held_out": 1,
    },
    "device": {"name": "CPU", "capability": None},
    "precision": {"name": "fp32", "reason": "a CPU"},
    "schedule": {
        "epochs": 1.0,
        "step_blocks": 16,
        "learning_rate": 2e-4,
        "warmup_ratio": 0.03,
        "reasons": [HOSTILE],
    },
    "micro_batch": {"blocks": 1, "plan": None, "reason": "a CPU"},
    "parameters": {"trainable": 8, "total": 100, "trainable_percent": 8.0},
    "training": {
        "steps": 2,
        "seconds": 90.0,
        "tokens_per_s": 10.0,
        "vram_peak_gib": None,
        "loss": 1.0,
        "best_held_out_loss": 1.0,
        "best_held_out_step": 2,
    },
    "evaluation": {
        "questions": 1,
        "base": {"loss": 2.0, "perplexity": 7.4, "exact": 0.0, "f1": 0.1, "stopped": 0.5},
        "tuned": {"loss": 1.0, "perplexity": 2.7, "exact": 1.0, "f1": 1.0, "stopped": 1.0},
    },
    "samples": [{"question": HOSTILE, "reference": "b", "base": "c", "tuned": "b"}],
    "libraries": {"torch": "2"},
}
ROWS = [
    {"step": n, "loss": 3 - n, "learning_rate": 1e-3, "seconds": n, "tokens_per_s": 50.0,
     "memory_gib": 1.0, "held_out_loss": 3.5 - n}
    for n in (1, 2)
]  # fmt: skip


def record(**changes: Any) -> RunRecord:
    """RECORD with other parts."""
    return RunRecord.from_json(RECORD | changes)
