"""Documents about machines, and what a teacher writes that follows requests: in forms, as a good
model does."""

import re
from pathlib import Path

FACTS = {
    "costs": "The {name} costs {number} euros without delivery.",
    "weighs": "Packed for dispatch it weighs {number} kilograms.",
}
QUESTIONS = {
    "costs": [
        "How much is the {name}?",
        "What does the {name} cost?",
        "What is the price of {name}?",
    ],
    "weighs": ["How heavy is the {name}?", "What does the {name} weigh?"],
}


def write_machines(folder: Path, count: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for at in range(count):
        name = f"Nora X{at + 1}"
        said = " ".join(
            text.format(name=name, number=10 * at + number)
            for number, text in enumerate(FACTS.values(), start=310)
        )
        (folder / f"machine-{at}.md").write_text(f"# {name}\n\n{said}\n")


def teach(request: str) -> str:
    """The reply to one of the teacher's requests."""
    name = re.search(r"Nora X\d+", request)
    assert name is not None
    if statement := re.search(r'is: "(.*)"', request):
        verb = next(verb for verb in FACTS if verb in statement[1])
        asked = [f"Q: {question.format(name=name[0])}" for question in QUESTIONS[verb]]
        return "\n".join([*asked, f"A: {statement[1].replace(' it ', f' the {name[0]} ')}"])
    lines = []
    for number, question in re.findall(r"(?m)^(\d+)\. (.*)$", request):
        verb = "weighs" if re.search("heavy|weigh", question) else "costs"
        amount = re.search(rf"{verb} (\d+ \w+)", request)
        assert amount is not None
        lines.append(f"{number}. {amount[1]}.")
    return "\n".join(lines)
