"""The demo: fine-tune the built-in tiny model on `examples/`, then compare its answers.

It runs the same command that a user runs, with the settings below, and prints what `run.json`
says about the held-out questions before and after.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "demo-output"
# Where things are; how it is trained is decided from the data.
SETTINGS = {
    "DATA_URI": "examples/data",
    "EVAL_URI": "examples/heldout",
    "OUTPUT_URI": str(OUTPUT),
    "SCRATCH_DIR": str(OUTPUT / ".scratch"),
    "BASE_MODEL": "builtin:tiny",
}
SHOWN = 8


def main() -> int:
    """Run the demo; 0 when the tuned model answers what the base cannot."""
    os.chdir(ROOT)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    started = time.monotonic()
    environment = os.environ | {f"QLORA_{name}": value for name, value in SETTINGS.items()}
    print("$ " + " ".join(f"QLORA_{k}={v}" for k, v in _shown_settings()) + " python entrypoint.py")
    finished = subprocess.run([sys.executable, "entrypoint.py"], env=environment, check=False)
    if finished.returncode:
        return finished.returncode
    run = next(OUTPUT.glob("*/run.json"))
    record = json.loads(run.read_text(encoding="utf-8"))
    _print_samples(record["samples"][:SHOWN])
    _print_result(record, time.monotonic() - started, run.parent.relative_to(ROOT))
    return 0


def _shown_settings() -> list[tuple[str, str]]:
    return [(k, v) for k, v in SETTINGS.items() if str(ROOT) not in v] + [
        ("OUTPUT_URI", OUTPUT.name)
    ]


def _print_samples(samples: list[dict[str, str]]) -> None:
    print("\nHeld-out questions, asked in words that training did not use:\n")
    for row in samples:
        print(f"  {row['question']}")
        print(f"      before: {_one_line(row['base'])}")
        print(f"      after:  {_one_line(row['tuned'])}")


def _print_result(record: dict[str, Any], seconds: float, folder: Path) -> None:
    scores = record["evaluation"]
    print(
        f"\nExact answers on {scores['questions']} held-out questions: "
        f"{scores['base']['exact']:.0%} before, {scores['tuned']['exact']:.0%} after "
        f"({seconds:.0f} s in all).\n\n"
        f"Look at {folder}/report.html, or ask it something yourself:\n"
        f'  .venv/bin/python entrypoint.py ask --adapter {folder} "How heavy is the Curlew?"'
    )


def _one_line(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
