"""Five runs that go wrong as runs do: what each says of itself, and what following that gives.

    python bench/bad_runs.py BASE                       a folder with a small instruction model, on a GPU; minutes
    python bench/bad_runs.py BASE --places 2 --with QLORA_EPOCHS=4      on a CPU; an hour or so

Each is the job itself on the facts of bench/facts.py with one thing wrong: one step; a rate 100 times too high; one
wording of each fact; answers in wrong rows; a QLORA_MAX_LENGTH that cuts half of the answers.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facts import record_of, write_facts

ROOT = Path(__file__).parent.parent
RATE = "0.2"  # 100 times the 2e-3 that `auto` gives an adapter on more than attention at width 576
Record = dict[str, Any]


@dataclass(frozen=True)
class Plant:
    """What is wrong, the words of the advice that mends it, and the run without it."""

    settings: dict[str, str] = field(default_factory=dict)
    part: str = "train"
    advice: str = ""
    mended: dict[str, str] = field(default_factory=dict)


def plants(short: str, enough: str) -> dict[str, Plant]:
    """`short` tokens cut half of the records, `enough` holds them all."""
    return {
        "one step": Plant({"QLORA_MAX_STEPS": "1"}, advice="leave QLORA_MAX_STEPS"),
        "rate x 100": Plant({"QLORA_LEARNING_RATE": RATE}, advice="leave QLORA_LEARNING_RATE"),
        "one wording": Plant(part="one", advice="write each question in three or four ways"),
        "answers in wrong rows": Plant(
            part="mixed", advice="put each answer beside its own question"
        ),
        "answers cut": Plant(
            {"QLORA_MAX_LENGTH": short},
            advice="set QLORA_MAX_LENGTH=",
            mended={"QLORA_MAX_LENGTH": enough},
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="what QLORA_BASE_MODEL is set to")
    parser.add_argument("--places", type=int, default=12)
    parser.add_argument("--only", help="one of the five")
    parser.add_argument(
        "--with", dest="more", nargs="*", default=[], help="settings of all runs, NAME=VALUE"
    )
    arguments = parser.parse_args()
    common = {"QLORA_RECIPE": "facts"} | dict(pair.split("=", 1) for pair in arguments.more)
    with tempfile.TemporaryDirectory() as name:
        data = write_facts(Path(name), seed=1, places=arguments.places)
        write_bad_parts(data)
        for title, plant in plants(*lengths(data, arguments.base)).items():
            if arguments.only in (None, title):
                told = diagnosis(
                    record_of(data, arguments.base, common | plant.settings, plant.part)
                )
                mended = diagnosis(record_of(data, arguments.base, common | plant.mended))
                verdict = "right" if plant.advice in told else "WRONG"
                print(f"{title}: {verdict}\n  {told}\n  followed: {mended}", flush=True)


def write_bad_parts(data: Path) -> None:
    """`one`: the first wording of each fact. `mixed`: the answers in another order."""
    lines = (data / "train" / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    answers = [record["answer"] for record in records]
    random.Random(0).shuffle(answers)
    mixed = [r | {"answer": answer} for r, answer in zip(records, answers, strict=True)]
    first = {record["answer"]: record for record in reversed(records)}
    for part, found in {"one": list(first.values()), "mixed": mixed}.items():
        (data / part).mkdir()
        (data / part / "facts.jsonl").write_text(
            "".join(f"{json.dumps(r)}\n" for r in found), encoding="utf-8"
        )


def lengths(data: Path, base: str) -> tuple[str, str]:
    """Tokens of the median record, and of the longest, rounded up as the advice is."""
    sys.path.insert(0, str(ROOT))
    from trainer.corpus.examples import Conversation, Message
    from trainer.models.locate import locate_base
    from trainer.settings import Settings
    from trainer.tokenization.chat_template import ensure_chat_template
    from trainer.tokenization.record_tokenizer import RecordTokenizer

    settings = Settings.read({"base_model": base}, dict(os.environ), trains=False)
    tokenizer = locate_base(settings).tokenizer()
    ensure_chat_template(tokenizer)
    lines = (data / "train" / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [(json.loads(line)["question"], json.loads(line)["answer"]) for line in lines]
    records = [Conversation((Message("user", q), Message("assistant", a))) for q, a in turns]
    encoded = RecordTokenizer(tokenizer).encode(records)
    found = [len(sequence.input_ids) for record in encoded for sequence in record.sequences]
    return str(statistics.median_low(found)), str(-(-max(found) // 64) * 64)


def diagnosis(record: Record | str) -> str:
    """What a run says first: why it was rejected, and what it has learned."""
    if isinstance(record, str):
        return record
    scores = record["evaluation"]["tuned"]
    said = [*record["rejected"], *record["warnings"]]
    return f"{scores['exact']:.0%} exact; {'; '.join(said)}"


if __name__ == "__main__":
    main()
