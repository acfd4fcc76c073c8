"""`inspect`: what a run would train on, as the model would see it; it trains nothing."""

import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.jobs import QUESTIONS, ROOT, run_here, variables, write_records

from trainer.cli import cli
from trainer.commands.inspect import Inspection, inspect_data, printed
from trainer.dataset.seen import Piece
from trainer.errors import DataError, SettingsError
from trainer.reporting.data_section import data_rows
from trainer.reporting.run_record import RunRecord
from trainer.settings import Settings

UNCOUNTED = ("MAX_STEPS", "EFFECTIVE_BATCH_SIZE", "LEARNING_RATE")  # left to the schedule


def settings_of(folder: Path, **changes: str) -> Settings:
    return Settings.read({}, variables(folder, **changes))


def inspected(folder: Path, examples: int = 3, **changes: str) -> Inspection:
    return inspect_data(settings_of(folder, **changes), examples)


def test_what_it_says_is_what_a_run_then_trains(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    write_records(data / "faq.jsonl", [{**record, "id": 1} for record in QUESTIONS])
    (data / "story.md").write_text("# A story\n\n" + "The fox sleeps for hours. " * 40)
    (data / "photo.png").write_bytes(b"\x89PNG")
    changes = dict.fromkeys(UNCOUNTED, "auto") | {
        "MAX_STEPS": "", "EPOCHS": "1.3", "BASE_REVISION": "v2", "MAX_LOSS_RATIO": "1e6"
    }  # fmt: skip
    found = inspected(tmp_path, **changes)
    run = RunRecord.from_json(json.loads((run_here(tmp_path, **changes) / "run.json").read_text()))
    assert (found.data, found.schedule) == (run.data, run.schedule)
    assert found.steps == run.training.steps > 2
    assert list(found.records) == list(run.seen) and len(run.seen) == 3
    advice = [warning for warning in found.warnings if warning not in run.warnings]
    assert ["wording" in advice[1], "1.3 times" in advice[0], len(advice)] == [True, True, 2]
    assert list(data_rows(found.settings, found.data)) == list(data_rows(run.settings, run.data))
    assert run.data.by_file_type[".jsonl"]["records"] == 40
    (told,) = set(found.warnings) - set(advice)
    assert told.startswith("QLORA_BASE_REVISION has no effect")


def test_piped_it_is_one_json_object(tmp_path: Path) -> None:
    write_records(tmp_path / "data" / "faq.jsonl", QUESTIONS)
    asked = ["inspect", "--examples", "2", "--data-uri", str(tmp_path / "data")]
    asked += ["--base-model", "builtin:tiny", "--scratch-dir", str(tmp_path / "scratch")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["base", "data", "counts", "warnings", "schedule", "records"]
    assert found["counts"]["conversation"] == 40
    assert found["schedule"]["steps"] > found["counts"]["blocks"]
    assert len(found["records"]) == 2
    trained = ["".join(p["text"] for p in r["pieces"] if p["trained"]) for r in found["records"]]
    assert trained == [f"{QUESTIONS[at]['answer']}</s>" for at in (0, 39)]
    assert str(tmp_path) not in done.stdout


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    folder = tmp_path_factory.mktemp("mixed")
    hostile = {"question": "What\x1b[31m\u202e is it?", "answer": "  a fox \x07"}
    write_records(folder / "data" / "faq.jsonl", [*QUESTIONS, {"a": 1}])
    write_records(folder / "data" / "bad.jsonl", [hostile])
    return inspected(folder, 9, EFFECTIVE_BATCH_SIZE="64", MAX_STEPS="9", EPOCHS="2")


def test_what_is_trained_is_green_or_stands_between_marks(mixed: Inspection) -> None:
    coloured = mixed.as_text(80, is_coloured=True)
    assert "\x1b[36m<s>\x1b[0m### Question:" in coloured
    assert "\x1b[32mHG-0443\x1b[0m\x1b[1m\x1b[32m</s>\x1b[0m" in coloured
    bare = mixed.as_text(80, is_coloured=False)
    assert "### Answer:\n⟦HG-0443</s>⟧" in bare
    assert "\x1b" not in bare


def test_a_terminal_obeys_nothing_that_the_data_says(mixed: Inspection) -> None:
    text = mixed.as_text(80, is_coloured=True)
    assert "What<1b>[31m<202e> is it?" in text and "a fox <07>" in text
    assert not set(text) & {"\x07", "\u202e"} and "\x1b[31m" not in text
    assert printed("tabs\tlines\n é 👩\u200d🚀") == "tabs\tlines\n é 👩\u200d🚀"


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_screen(mixed: Inspection, width: int) -> None:
    text = mixed.as_text(width, is_coloured=False).partition("faq.jsonl, ")[0]
    assert max(map(len, text.splitlines())) <= width
    for words in ("Worth knowing", "- QLORA_EPOCHS has no effect", "faq.jsonl line 41: "):
        assert words in text
    assert "records" in text and "trained" in text


def test_a_long_line_of_a_record_is_broken_between_words(mixed: Inspection) -> None:
    words = "漢字 and longer words here, " * 20
    seen = replace(mixed.records[0], pieces=[Piece(words, trained=True, special=False)])
    shown = replace(mixed, records=[seen]).as_text(40, is_coloured=False).rpartition("⟦")[2]
    assert all(len(line) + line.count("漢字") * 2 <= 41 for line in shown.split("\n"))
    assert "\n" in shown and shown.replace("\n", "") == f"{words}⟧"


def test_data_that_a_run_refuses_is_refused_alike(tmp_path: Path) -> None:
    write_records(tmp_path / "data" / "faq.jsonl", [{"a": 1}] * 3)
    with pytest.raises(DataError) as refused:
        inspected(tmp_path)
    with pytest.raises(DataError) as of_run:
        run_here(tmp_path)
    assert str(refused.value) == str(of_run.value)
    done = CliRunner().invoke(cli, ["inspect", "--base-model", "builtin:tiny"])
    assert isinstance(done.exception, SettingsError) and "--data-uri" in str(done.exception)


def test_no_weights_are_needed(tmp_path: Path) -> None:
    tiny = ROOT / "trainer" / "builtin" / "tiny"
    base = shutil.copytree(tiny, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    found = inspected(tmp_path, 0, BASE_MODEL=str(base))
    assert found.data.conversation == 40 and not found.records
    assert "As the model sees it" not in found.as_text(80, is_coloured=True)


def on_a_terminal(folder: Path, **more: str) -> str:
    """What the command writes where its output is a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | variables(folder, LOG_FORMAT="auto", OUTPUT_URI="") | more
    environment |= {"COLUMNS": "100", "TERM": more.get("TERM", "xterm")}
    command = [sys.executable, str(ROOT / "entrypoint.py"), "inspect"]
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # Linux says so where the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return written.decode().replace("\r\n", "\n")


def test_a_terminal_shows_it_in_colour_unless_that_is_not_wanted(tmp_path: Path) -> None:
    shown: Any = on_a_terminal(tmp_path)
    assert "\x1b[32mHG-0000\x1b[0m" in shown
    assert "\x1b" not in on_a_terminal(tmp_path, NO_COLOR="1")
