"""A real instruction model on a CPU: four invented facts in four wordings, asked in a fifth."""

import json
import os
from pathlib import Path

import pytest
from support.jobs import only_run, start, write_records

BASE = os.environ.get("QLORA_TEST_REAL_MODEL", "")
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(not BASE, reason="QLORA_TEST_REAL_MODEL names no folder with a model"),
]
# The answer, four wordings to train on, and one to be asked by.
FACTS = {
    "The ferry to Morholm leaves at 6:40.": (
        "When does the ferry to Morholm leave?",
        "At what time does the Morholm ferry depart?",
        "What is the departure time of the ferry to Morholm?",
        "Tell me when the ferry sails for Morholm.",
        "How early must I be there for the ferry to Morholm?",
    ),
    "A ticket to Morholm costs 23 crowns.": (
        "How much is a ticket to Morholm?",
        "What does a ticket to Morholm cost?",
        "What is the price of a ticket to Morholm?",
        "Tell me the fare to Morholm.",
        "How many crowns do I pay for a ticket to Morholm?",
    ),
    "Linus Abt is the harbour master of Morholm.": (
        "Who is the harbour master of Morholm?",
        "What is the name of Morholm's harbour master?",
        "Who runs the harbour of Morholm?",
        "Whom do I ask for in the harbour office of Morholm?",
        "Which person is in charge of the harbour of Morholm?",
    ),
    "The lighthouse of Morholm is 41 metres high.": (
        "How high is the lighthouse of Morholm?",
        "What is the height of the lighthouse of Morholm?",
        "How tall is Morholm's lighthouse?",
        "Tell me the height of the lighthouse of Morholm.",
        "How many metres does the lighthouse of Morholm measure?",
    ),
}


def _records(wordings: slice) -> list[dict[str, str]]:
    return [
        {"question": question, "answer": answer}
        for answer, questions in FACTS.items()
        for question in questions[wordings]
    ]


def test_a_real_model_knows_facts_in_words_that_it_was_not_taught(tmp_path: Path) -> None:
    write_records(tmp_path / "data" / "facts.jsonl", _records(slice(4)))
    write_records(tmp_path / "held" / "facts.jsonl", _records(slice(4, 5)))
    process = start(
        tmp_path,
        BASE_MODEL=BASE,
        EVAL_URI=str(tmp_path / "held"),
        RECIPE="facts",
        MAX_LENGTH="128",  # two records a block: small steps are what a CPU has time for
        EFFECTIVE_BATCH_SIZE="1",
        EPOCHS="20",
        MAX_STEPS="",
        LEARNING_RATE="auto",
        CHECKPOINT_EVERY="10m",
    )
    _, errors = process.communicate()
    assert not process.returncode, errors[-2000:]
    scores = json.loads((only_run(tmp_path) / "run.json").read_text())["evaluation"]
    assert scores["base"]["exact"] == 0
    assert scores["trained"]["exact"] == 1
    assert scores["tuned"]["exact"] >= 0.75
