"""A run ends well in a locale that is not UTF-8: what it writes and reads does not go by it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.jobs import only_run, run_command, write_records

LATIN = "en_US.ISO-8859-1"


@pytest.fixture
def latin(tmp_path: Path) -> dict[str, str]:
    """The environment of that locale, made here."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef to make a locale with")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / LATIN)]
    if subprocess.run(made, capture_output=True).returncode:
        pytest.skip("no sources of locales here")
    return {"LOCPATH": str(tmp_path), "LC_ALL": LATIN, "PYTHONUTF8": "0"}


def test_a_run_is_published_in_a_locale_that_is_not_utf_8(
    tmp_path: Path, latin: dict[str, str]
) -> None:
    records = [{"question": f"Größe → Ω {n}?", "answer": f"日本 {n}"} for n in range(40)]
    write_records(tmp_path / "data" / "questions.jsonl", records)
    done = run_command(tmp_path, environment=latin, MAX_STEPS="2")
    assert (done.returncode, done.stderr) == (0, "")
    report = (only_run(tmp_path) / "report.html").read_text(encoding="utf-8")
    samples = json.loads((only_run(tmp_path) / "run.json").read_text(encoding="utf-8"))["samples"]
    assert samples[0]["question"].startswith("Größe → Ω")
    assert "Größe → Ω" in report
