"""What `prepare` makes of documents whose facts are known: right, wrong, covered, wordings, and how fast.

    python bench/prepare.py BASE --documents 60                 a folder with a small model, on a GPU; minutes
    python bench/prepare.py BASE --documents 2 --kind places    on a CPU: a minute or more a document
    python bench/prepare.py BASE --folder documents/            of machines as below that lie there already

A kept question is right when it names its document's subject and asks for one fact, and its answer holds the value of
that fact; also when it asks what the subject is and the answer is the sentence that says so, which is none of the facts.
Any other is wrong. Each row is the command itself.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
STARTS = "Bran Cal Dun Eld Fos Gar Hul Isk Jor Kel Lum Mor".split()
ENDS = "beck combe dale fleet gate holm leigh mere ness stow thwaite wick".split()
NAMES = "Agnes Boris Clara Dunja Edgar Frieda Georg Hanna Igor Judith Konrad Lena".split()
COLOURS = "red green blue white black silver orange yellow purple brown grey copper".split()
TREES = "alder ash beech birch elm hazel larch lime maple oak pine willow".split()
ENOUGH = 4  # wordings of a fact
# Of each fact: what it is, its sentence, where its value stands, and what a question about it has.
MACHINES = [
    ("Every unit is covered by a warranty of {months} months, counted from the day of delivery.",
     r"warranty of (\d+ months)", r"warrant|guarant"),
    ("Its list price is {euros} euros without delivery.", r"price is (\d+ euros)", r"price|cost|euro|\bpay\b|how much is"),
    ("Packed for dispatch it weighs {kilograms} kilograms, so plan the lift accordingly.",
     r"weighs (\d+ kilograms)", r"heavy|weigh|kilogram"),
    ("The housing is {colour} and cannot be ordered in another colour.", r"housing is (\w+)", r"colou?r|housing"),
    ("Repairs are done by {name} in the workshop on the ground floor.", r"done by (\w+)", r"repair"),
]  # fmt: skip
PLACES = [
    ("It has {people} inhabitants and a weekly market.", r"has (\d+) inhabitants", r"people|population|inhabitant|live"),
    ("The town was founded in {year} by fishermen from the coast.", r"founded in (\d+)", r"found|year|when|establish"),
    ("The tree on its market square is a {tree}.", r"square is an? (\w+)", r"\btree"),
    ("Its mayor is {name}, who was elected last spring.", r"mayor is (\w+)", r"mayor"),
    ("The tower of the church is {metres} metres high.", r"is (\d+ metres) high", r"tower|church"),
]  # fmt: skip
KINDS = {
    "machines": ("one of our machines", MACHINES),
    "places": ("a small town by a river", PLACES),
}
WHAT = re.compile(r"what is N\?|what N is\?|about N\?|describe N\?", re.IGNORECASE)
COLUMNS = ("facts", "with a right question", f"with {ENOUGH} wordings", "kept", "wrong", "wrong %", "seconds",
           "pairs/s", "tokens/s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="what QLORA_BASE_MODEL is set to")
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--kind", choices=sorted(KINDS), default="machines")
    parser.add_argument("--folder", type=Path, help="documents of this kind, in place of made ones")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--show-wrong", action="store_true")
    given = parser.parse_args()
    print(" | ".join(("seed", *COLUMNS)))
    for seed in range(7, 7 + given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            row, wrong = measured(Path(folder), seed, given)
        print(" | ".join((str(seed), *(f"{value:g}" for value in row))), flush=True)
        if given.show_wrong:
            print("\n".join(f"  {one['question']} -> {one['answer']}" for one in wrong))


def measured(
    folder: Path, seed: int, given: argparse.Namespace
) -> tuple[list[float], list[dict[str, str]]]:
    documents = written(folder / "data", seed, given)
    began = time.monotonic()
    tokens = prepared(folder, given.base)
    seconds = time.monotonic() - began
    lines = (folder / "out" / "questions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    right, wrong = judged(records, documents, KINDS[given.kind][1])
    facts = len(documents) * len(KINDS[given.kind][1])
    enough = sum(len(some) >= ENOUGH for some in right.values())
    share = 100 * len(wrong) / max(1, len(records))
    row = [facts, len(right), enough, len(records), len(wrong), round(share, 1), round(seconds)]
    return [*row, round(len(records) / seconds, 2), round(tokens / seconds, 1)], wrong


def written(folder: Path, seed: int, given: argparse.Namespace) -> dict[str, str]:
    """The subject of each document by its file's name."""
    folder.mkdir(parents=True)
    if given.folder:
        chosen = sorted(given.folder.glob("*.md"))[: given.documents]
        texts = {path.name: path.read_text() for path in chosen}
    else:
        r = random.Random(seed)
        texts = dict(document(r, given.kind) for _ in range(given.documents))
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: text.partition("\n")[0].removeprefix("# ") for name, text in texts.items()}


def document(r: random.Random, kind: str) -> tuple[str, str]:
    what, facts = KINDS[kind]
    name = r.choice(STARTS) + r.choice(ENDS)
    name += f" {r.choice('ABKTX')}{r.randint(10, 99)}" if kind == "machines" else r.choice(ENDS)
    values = {
        "months": r.randint(6, 60), "euros": r.randint(20, 990), "kilograms": r.randint(2, 95),
        "colour": r.choice(COLOURS), "name": r.choice(NAMES), "people": r.randint(200, 9800),
        "year": r.randint(1100, 1900), "tree": r.choice(TREES), "metres": r.randint(3, 90),
    }  # fmt: skip
    prose = [sentence.format(**values) for sentence, _, _ in facts]
    r.shuffle(prose)
    the = "The " if kind == "machines" else ""
    return f"{name}.md", f"# {name}\n\n{the}{name} is {what}. {' '.join(prose)}\n"


def prepared(folder: Path, base: str) -> int:
    """Run the command; the tokens that it generated."""
    places = {"QLORA_DATA_URI": "data", "QLORA_OUTPUT_URI": "out", "QLORA_SCRATCH_DIR": "scratch"}
    environment = {
        **os.environ,
        **{name: str(folder / place) for name, place in places.items()},
        "QLORA_BASE_MODEL": base,
        "QLORA_LOG_FORMAT": "json",
        "QLORA_REFUSAL_SHARE": "0",
    }
    command = [sys.executable, str(ROOT / "entrypoint.py"), "prepare"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found = re.findall(r'"generated_tokens": (\d+)', done.stdout + done.stderr)
    return int(found[-1]) if found else 0


def judged(
    records: list[dict[str, str]], documents: dict[str, str], facts: list[tuple[str, str, str]]
) -> tuple[dict[tuple[str, int], list[str]], list[dict[str, str]]]:
    """Right questions by (file, fact), and wrong records."""
    right: dict[tuple[str, int], list[str]] = defaultdict(list)
    wrong = []
    for record in records:
        question = record["question"]
        about = [
            n for n, (_, _, words) in enumerate(facts) if re.search(words, question, re.IGNORECASE)
        ]
        said = [n for n, (_, value, _) in enumerate(facts) if re.search(value, record["answer"])]
        name = documents[record["source"]]
        is_what = not about and not said and WHAT.search(re.sub(f"(?:the )?{name}", "N", question))
        if name in question and len(about) == 1 and about == said:
            right[record["source"], about[0]].append(question)
        elif not (name in question and is_what and f"{name} is " in record["answer"]):
            wrong.append(record)
    return right, wrong


if __name__ == "__main__":
    main()
