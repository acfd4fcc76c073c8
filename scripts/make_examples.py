"""Write the question/answer records in examples/ from one table of facts and one of wordings.

`python scripts/make_examples.py` writes examples/data/questions.jsonl (to train on) and
examples/heldout/questions.jsonl (to be examined on): the same facts, asked in wordings that
training never shows. The handbook in examples/data/handbook/ is written by hand and is where
the facts come from, so an answer that no page contains is an error.
"""

import json
from collections.abc import Iterator
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

COMPANY = "Hollin & Gale"
PRODUCT_FACTS = {
    "the Plover": {
        "price": "149 euros", "weight": "430 grams", "warranty": "3 years", "battery": "14 months", "range": "120 metres", "colour": "moss green",
        "material": "recycled fishing net", "code": "HG-2140", "designer": "Ilse Varga", "town": "Brackwater", "launch": "2016", "interval": "48 seconds",
    },
    "the Curlew": {
        "price": "385 euros", "weight": "1.9 kg", "warranty": "7 years", "battery": "26 months", "range": "1.4 km", "colour": "signal orange",
        "material": "marine bronze", "code": "HG-3775", "designer": "Tobias Renn", "town": "Port Ennis", "launch": "2011", "interval": "12 seconds",
    },
    "the Dunlin": {
        "price": "79 euros", "weight": "265 grams", "warranty": "30 months", "battery": "200 hours", "range": "35 metres", "colour": "sunflower yellow",
        "material": "beech plywood", "code": "HG-0512", "designer": "Noor Achterberg", "town": "Wexcombe", "launch": "2021", "interval": "5 minutes",
    },
    "the Whimbrel": {
        "price": "1240 euros", "weight": "5.6 kg", "warranty": "12 years", "battery": "5 years", "range": "8.5 km", "colour": "slate grey",
        "material": "forged magnesium", "code": "HG-9008", "designer": "Matthias Oyelaran", "town": "Tarn Hollow", "launch": "1998", "interval": "3 seconds",
    },
}  # fmt: skip
COMPANY_FACTS = {
    "founded": "1987", "founder": "Ruth Hollin", "office": "Mallow Quay", "telephone": "555 0142", "returns": "45 days",
    "delivery": "4 working days", "staff": "63 people", "mascot": "a blue heron", "opening": "8:45", "closed": "Thursday afternoon",
}  # fmt: skip

# Six wordings to train on, then two that are held out. {x} is "the Plover" or the company.
WORDINGS = {
    "price": (
        ["How much does {x} cost?", "What is the price of {x}?", "What do I pay for {x}?", "How expensive is {x}?", "Tell me the list price of {x}.", "What will {x} set me back?"],
        ["How much money do I need to buy {x}?", "What does {x} cost?"],
    ),
    "weight": (
        ["How heavy is {x}?", "What is the weight of {x}?", "How much does {x} weigh?", "Tell me the weight of {x}.", "What would the scales show for {x}?", "Which weight does {x} have?"],
        ["What does {x} weigh?", "I need to know the total weight of {x}."],
    ),
    "warranty": (
        ["How long is the warranty on {x}?", "For how long is {x} guaranteed?", "What is the warranty period of {x}?", "How long does the guarantee of {x} run?",
         "How long am I covered if {x} breaks?", "Tell me the warranty of {x}."],
        ["How long is {x} under warranty?", "How long is the guarantee on {x}?"],
    ),
    "battery": (
        ["How long does the battery of {x} last?", "What is the battery life of {x}?", "How long does {x} run on its batteries?", "After how long do I change the batteries of {x}?",
         "Tell me the battery life of {x}.", "How long will {x} keep going on one set of batteries?"],
        ["How long do the batteries in {x} last?", "How long can {x} run before its battery is empty?"],
    ),
    "range": (
        ["How far does {x} reach?", "What is the radio range of {x}?", "How far can {x} send?", "How far does the signal of {x} carry?", "Up to what distance does {x} work?", "Tell me the range of {x}."],
        ["How far does the radio of {x} reach?", "What wireless range does {x} have?"],
    ),
    "colour": (
        ["What colour is {x}?", "In which colour does {x} come?", "Tell me the colour of {x}.", "What colour is the case of {x}?", "How is {x} painted?", "What is the standard colour of {x}?"],
        ["Which colour is {x}?", "In what colour do you sell {x}?"],
    ),
    "material": (
        ["What is {x} made of?", "Which material is {x} made of?", "What is the housing of {x} made of?", "Tell me the housing material of {x}.", "What is the body of {x} built from?", "What material does {x} have?"],
        ["What is {x} made from?", "Which material is used for the housing of {x}?"],
    ),
    "code": (
        ["What is the order code of {x}?", "Which code do I use to order {x}?", "What is the part number of {x}?", "How is {x} listed in the catalogue?", "Tell me the order number of {x}.", "Which number do I quote for {x}?"],
        ["Under which code do I order {x}?", "What is the article number of {x}?"],
    ),
    "designer": (
        ["Who designed {x}?", "Who is the designer of {x}?", "By whom was {x} designed?", "Whose design is {x}?", "Who came up with {x}?", "Tell me the designer of {x}."],
        ["Which person designed {x}?", "Who is behind the design of {x}?"],
    ),
    "town": (
        ["Where is {x} made?", "In which town is {x} assembled?", "Where does {x} come from?", "Which town makes {x}?", "Where do they put {x} together?", "What is the place of assembly of {x}?"],
        ["Where is {x} assembled?", "In which town do they build {x}?"],
    ),
    "launch": (
        ["When was {x} launched?", "Since when has {x} been on sale?", "When did {x} come out?", "What is the launch year of {x}?", "In what year did {x} first appear?", "Tell me the year of release of {x}."],
        ["In which year was {x} launched?", "When was {x} first sold?"],
    ),
    "interval": (
        ["How often does {x} measure?", "What is the measuring interval of {x}?", "How often does {x} send new values?", "At what interval does {x} measure?", "How long do I wait for a new reading from {x}?",
         "Tell me the update interval of {x}."],
        ["How often does {x} take a reading?", "How much time passes between two readings of {x}?"],
    ),
    "founded": (
        ["When was {x} founded?", "In which year did {x} start?", "Since when has {x} existed?", "What is the founding year of {x}?", "When was {x} set up?", "How old is {x}, when did it begin?"],
        ["In which year was {x} founded?", "When did {x} start?"],
    ),
    "founder": (
        ["Who founded {x}?", "Who is the founder of {x}?", "By whom was {x} founded?", "Who set up {x}?", "Tell me the founder of {x}.", "Who was the first owner of {x}?"],
        ["Who started {x}?", "Which person founded {x}?"],
    ),
    "office": (
        ["Where is {x} based?", "Where is the head office of {x}?", "In which town is {x}?", "What is the home town of {x}?", "Where does {x} have its office?", "Tell me the head office of {x}."],
        ["Where are the headquarters of {x}?", "Which town is home to {x}?"],
    ),
    "telephone": (
        ["What is the telephone number of {x}?", "How do I reach {x} by phone?", "Which number do I dial for {x}?", "Tell me the phone number of {x}.", "How can I call {x}?", "What is the service number of {x}?"],
        ["What number do I call to reach {x}?", "Which phone number does {x} have?"],
    ),
    "returns": (
        ["How long does {x} take goods back?", "What is the return period of {x}?", "Within what time can I return things to {x}?", "By when must I return goods to {x}?",
         "How much time does {x} give me to return something?", "Tell me the time limit for returns of {x}."],
        ["How long do I have to send goods back to {x}?", "What return period does {x} have?"],
    ),
    "delivery": (
        ["How long does {x} take to deliver?", "What is the delivery time of {x}?", "How soon does an order from {x} arrive?", "How long do I wait for a parcel from {x}?", "Tell me the delivery time of {x}.",
         "When will my order from {x} come?"],
        ["How fast does {x} deliver?", "What is the shipping time of {x}?"],
    ),
    "staff": (
        ["How many people work at {x}?", "What is the number of employees of {x}?", "How many people does {x} employ?", "How big is the team of {x}?", "Tell me the size of the staff of {x}.", "How large is {x}?"],
        ["How many employees does {x} have?", "How large is the team of {x}?"],
    ),
    "mascot": (
        ["What is the mascot of {x}?", "Which animal stands for {x}?", "What is on the logo of {x}?", "Which animal is on the boxes of {x}?", "Tell me the mascot of {x}.", "What does the emblem of {x} show?"],
        ["What animal does {x} have as a mascot?", "Which animal does the logo of {x} show?"],
    ),
    "opening": (
        ["When does {x} open?", "What is the opening time of {x}?", "How early can I visit {x}?", "What time do the doors of {x} open?", "Tell me the opening time of {x}.", "From when on is {x} open?"],
        ["At what time does {x} open?", "From what time is {x} open?"],
    ),
    "closed": (
        ["When is {x} closed?", "What is the closing day of {x}?", "When is nobody at {x}?", "On what day can I not visit {x}?", "When does {x} have its day off?", "Tell me the closing day of {x}."],
        ["On which day is {x} closed?", "What is the day off of {x}?"],
    ),
}  # fmt: skip


def facts() -> Iterator[tuple[str, str, str]]:
    """(subject, kind, answer), one for each fact."""
    for subject, answers in {**PRODUCT_FACTS, COMPANY: COMPANY_FACTS}.items():
        for kind, answer in answers.items():
            yield subject, kind, answer


def records(part: int) -> list[dict[str, str]]:
    """`part` 0 is for training, 1 is held out."""
    return [
        {"question": wording.format(x=subject), "answer": answer}
        for subject, kind, answer in facts()
        for wording in WORDINGS[kind][part]
    ]


def check(train: list[dict[str, str]], heldout: list[dict[str, str]]) -> None:
    """Every answer stands in the handbook, and no question stands twice."""
    handbook = " ".join(
        " ".join(page.read_text(encoding="utf-8").split())
        for page in sorted((EXAMPLES / "data" / "handbook").glob("*.md"))
    )
    unfounded = sorted({record["answer"] for record in train if record["answer"] not in handbook})
    asked = [record["question"] for record in train + heldout]
    twice = sorted({question for question in asked if asked.count(question) > 1})
    if unfounded or twice:
        raise SystemExit(f"not in the handbook: {unfounded}; asked twice: {twice}")


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    print(f"{path}: {len(rows)} records")


def main() -> None:
    train, heldout = records(0), records(1)
    check(train, heldout)
    write(EXAMPLES / "data" / "questions.jsonl", train)
    write(EXAMPLES / "heldout" / "questions.jsonl", heldout)


if __name__ == "__main__":
    main()
