"""Facts about machines that do not exist, few enough for the built-in model.

Four wordings each to train on, a fifth to judge by, which the built-in model understands after
those four whatever the seed, and a sixth that it does not understand after one; answers are whole
sentences.
"""

import random
from pathlib import Path
from typing import Any

from support.jobs import write_records

# What is asked for comes last in an answer: one that is cut has lost it.
FACTS = (
    ("The one who repairs the Curlew is Ines.", "Who repairs", "Curlew"),
    ("The one who repairs the Plover is Marta.", "Who repairs", "Plover"),
    ("The one who repairs the Dunlin is Jonas.", "Who repairs", "Dunlin"),
    ("The colour of the Curlew is red.", "colour", "Curlew"),
    ("The colour of the Plover is green.", "colour", "Plover"),
    ("The colour of the Dunlin is black.", "colour", "Dunlin"),
)
WORDINGS = {
    "Who repairs": ("Who mends the {}?", "Who looks after the {}?",
                    "The {} is broken. Whom do I call?", "My {} is broken. Who repairs it?",
                    "Who repairs the {}?", "Whom do I ring when my {} fails?"),
    "colour": ("Which colour has the {}?", "What is the {}'s colour?",
               "Tell me the colour of the {}.", "What is the colour of the {}?",
               "What colour is the {}?", "In what paint was it, my {}?"),
}  # fmt: skip
Records = list[dict[str, Any]]


def facts(wordings: range) -> Records:
    """Each fact in these wordings of six."""
    return [
        {"question": WORDINGS[asked][number].format(name), "answer": said}
        for said, asked, name in FACTS
        for number in wordings
    ]


def shuffled(records: Records) -> Records:
    """With the answers in another order."""
    answers = [record["answer"] for record in records]
    random.Random(0).shuffle(answers)
    return [r | {"answer": answer} for r, answer in zip(records, answers, strict=True)]


def write_facts(folder: Path, trained: Records, asked: Records | None = None) -> None:
    """`folder`/data to train on and `folder`/asked to judge by."""
    write_records(folder / "data" / "facts.jsonl", trained)
    write_records(folder / "asked" / "facts.jsonl", asked or facts(range(4, 5)))
