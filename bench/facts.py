"""What a bot knows of invented facts: by the defaults and by recipe, asked in words that were not trained.

    python bench/facts.py BASE                   a folder with a small instruction model, on a GPU; minutes
    python bench/facts.py builtin:tiny --places 4 --seeds 1      on a CPU: that it runs

Places that do not exist have five facts each, whole sentences as answers, four wordings to train on and a fifth to
judge by. Each row is the job itself, as a user starts it; data, evaluation data and base are all it is told.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WORDINGS = 4
ROWS: dict[str, dict[str, str]] = {
    "defaults": {},
    "facts": {"QLORA_RECIPE": "facts"},
    "style": {"QLORA_RECIPE": "style"},
    "as before: one pass, 16 blocks, 2e-4": {
        "QLORA_EPOCHS": "1",
        "QLORA_EFFECTIVE_BATCH_SIZE": "16",
        "QLORA_LEARNING_RATE": "2e-4",
        "QLORA_MAX_LOSS_RATIO": "1",
    },
}
STARTS = "Bran Cal Dun Eld Fos Gar Hul Isk Jor Kel Lum Mor".split()
ENDS = "beck combe dale fleet gate holm leigh mere ness stow thwaite wick".split()
TREES = "alder ash beech birch elm hazel larch lime maple oak pine willow".split()
NAMES = "Agnes Boris Clara Dunja Edgar Frieda Georg Hanna Igor Judith Konrad Lena".split()
# What is asked of a place: a value, the answer, five wordings.
FACTS: list[tuple[Any, str, list[str]]] = [
    (
        lambda r: f"{r.randint(200, 9800):,}",
        "{place} has {value} inhabitants.",
        ["How many people live in {place}?", "What is the population of {place}?",
         "How many inhabitants does {place} have?", "How large is {place}, counted in people?",
         "Tell me how many live in {place}."],
    ),
    (
        lambda r: str(r.randint(1100, 1900)),
        "{place} was founded in {value}.",
        ["When was {place} founded?", "In which year did {place} begin?", "How old is {place}: since when?",
         "What year was {place} established?", "Since which year has {place} existed?"],
    ),
    (
        lambda r: r.choice(TREES),
        "The tree on the market square of {place} is a {value}.",
        ["Which tree stands on the market square of {place}?", "What kind of tree grows in the centre of {place}?",
         "What tree is there in the middle of {place}?", "Name the tree on {place}'s square.",
         "Under which tree does the market of {place} take place?"],
    ),
    (
        lambda r: r.choice(NAMES),
        "{value} is the mayor of {place}.",
        ["Who is the mayor of {place}?", "Who governs {place}?", "What is the name of {place}'s mayor?",
         "Whom do I write to as mayor of {place}?", "Who heads the town hall of {place}?"],
    ),
    (
        lambda r: f"{r.randint(3, 90)} metres",
        "The tower of {place} is {value} high.",
        ["How high is the tower of {place}?", "What height does {place}'s tower have?",
         "How tall is the tower in {place}?", "What does the tower of {place} measure from foot to top?",
         "How many metres is the tower of {place} high?"],
    ),
]  # fmt: skip
COLUMNS = ("steps", "exact, new wording", "its F1", "trained wording", "held-out loss", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="what QLORA_BASE_MODEL is set to")
    parser.add_argument("--places", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"| row | seed | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 2)}|")
        for seed in range(1, arguments.seeds + 1):
            data = write_facts(Path(folder) / str(seed), seed, arguments.places)
            for name, settings in ROWS.items():
                print(row(name, seed, record_of(data, arguments.base, settings)), flush=True)


def write_facts(folder: Path, seed: int, places: int) -> Path:
    """`folder`/train and `folder`/held, a `.jsonl` of records each."""
    r = random.Random(seed)
    names = r.sample([start + end for start in STARTS for end in ENDS], places)
    records: dict[str, list[dict[str, str]]] = {"train": [], "held": []}
    for place, (value_of, answer, wordings) in ((p, fact) for p in names for fact in FACTS):
        said = answer.format(place=place, value=value_of(r))
        for number, wording in enumerate(wordings):
            part = "train" if number < WORDINGS else "held"
            records[part].append({"question": wording.format(place=place), "answer": said})
    for part, found in records.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "facts.jsonl").write_text(
            "".join(f"{json.dumps(f)}\n" for f in found), encoding="utf-8"
        )
    return folder


def record_of(
    data: Path, base: str, settings: dict[str, str], part: str = "train"
) -> dict[str, Any] | str:
    """`run.json` of a run on a `part` of `data`, also of one that was rejected; else what it said."""
    with tempfile.TemporaryDirectory(dir=data) as output:
        told = {
            "QLORA_DATA_URI": str(data / part),
            "QLORA_EVAL_URI": str(data / "held"),
            "QLORA_BASE_MODEL": base,
            "QLORA_OUTPUT_URI": f"{output}/out",
            "QLORA_SCRATCH_DIR": f"{output}/scratch",
        }
        done = subprocess.run(
            [sys.executable, "entrypoint.py"],
            cwd=ROOT,
            env=os.environ | told | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        for path in _records(Path(output)):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        return done.stderr.strip()[-200:]


def _records(output: Path) -> Iterator[Path]:
    yield from output.glob("out/*/run.json")
    yield from output.glob("out/*/rejected/run.json")


def row(name: str, seed: int, record: dict[str, Any] | str) -> str:
    if isinstance(record, str):
        return f"| {name} | {seed} | {record} |"
    scores, training = record["evaluation"], record["training"]
    cells = (
        f"{training['steps']:,}",
        f"{scores['tuned']['exact']:.1%}",
        f"{scores['tuned']['f1']:.3f}",
        f"{scores['trained']['exact']:.1%}",
        f"{scores['base']['loss']:.3f} to {scores['tuned']['loss']:.3f}",
        f"{training['seconds']:.0f}",
    )
    return f"| {name} | {seed} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
