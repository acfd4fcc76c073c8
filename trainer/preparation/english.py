"""What a small model is helped with in English: how questions begin that go with a sentence, and
questions about a topic or a quantity that are right whatever it is."""

import re

# They show the form; what they are about is nothing real, and no kept question may name it.
EXAMPLES = """\
Sentence about the Kellmar school: Lessons begin at half past eight.
Question: When do lessons begin at the Kellmar school?

Sentence about the river Ando: It is 83 kilometres long and ends in a lake.
Question: How long is the river Ando?

"""
ASKED = "Sentence about {subject}: {statement}\nQuestion:"
NOTHING = "There is something to say about {subject}."  # a question that fits it fits anything
TOPIC = "{subject}\n\n{statement}\n\nThis sentence tells us the {name}'s"

_NUMBER = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|once|twice)\b", re.IGNORECASE
)
_SPAN = re.compile(r"\b(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b", re.IGNORECASE)
_LENGTH = re.compile(
    r"\b(?:(?:kilo|centi|milli)?met(?:re|er)s?|[kcm]m|m|miles?|feet|inch(?:es)?)\b", re.IGNORECASE
)
_MONEY = re.compile(
    r"[$€£¥]|\b(?:euros?|dollars?|pounds?|francs?|cents?|EUR|USD|GBP|CHF)\b", re.IGNORECASE
)
_WEIGHT = re.compile(r"\b(?:kilo(?:gram)?s?|grams?|kg|tons?|tonnes?|lbs?|ounces?)\b", re.IGNORECASE)
_PLACE = re.compile(r"\b(?:in|at|on|near|under|behind|beside|inside|outside)\b", re.IGNORECASE)
# What a sentence begins with, up to its verb: `The list price is …`.
_BEGIN = re.compile(
    r"(?!(?:every|each|all|any|some|no|it|they|you|we|there)\b)"
    r"(?!\w+ly\b)(?:(?:the|its|their|our|your|an?)\s+)?"
    r"((?:(?!(?:you|we|i|it|they|that|which|who)\b)[^\W\d_]+\s+){1,2}?)"
    r"(?:is|are|was|were|has|have|can|will|must|may|should|does|do)\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\b(?:when|while|before|after|until|once|during|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|"
    r"january|february|march|april|june|july|august|september|october|november|december|"
    r"mornings?|noon|evenings?|midnight|1[5-9]\d\d|20\d\d|\d{1,2}:\d\d|o'clock)\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|since|due to|so that|in order to|therefore)\b", re.IGNORECASE)
_WAY = re.compile(r"\b(?:by|with|using|via|through)\b", re.IGNORECASE)
_ITSELF = re.compile(r"\b(?:it|its|they|their)\b", re.IGNORECASE)
# What a number is told of: `a warranty of 3 years`.
_MEASURED = re.compile(r"\b(?:an?|the|its|their)\s+([^\W\d_]{3,})\s+of\s+\d", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|its|their|are|is)\s+", re.IGNORECASE)
_HOW_LARGE = re.compile(
    r"\bhow (?:many|much|far|old|high|tall|deep|wide|big|large|fast|often|soon|late)\b"
)


def beginnings(statement: str, names_somebody: bool) -> list[str]:
    """Of questions: nobody asks when where no time is said."""
    found = ["", " What", " Which", " What is the"]
    if _NUMBER.search(statement):
        found += [" How many", " How much"]
        found += [" How long"] if _SPAN.search(statement) or _LENGTH.search(statement) else []
    found += [" Who"] if names_somebody else []
    also = ((_PLACE, " Where"), (_TIME, " When"), (_REASON, " Why"), (_WAY, " How"))
    return found + [beginning for fits, beginning in also if fits.search(statement)]


def about_quantities(statement: str, subject: str) -> list[list[str]]:
    """Questions after a quantity of the subject itself, which the sentence names or calls `it`; of
    each quantity in several wordings, of which the first stands for all."""
    name = subject.removeprefix("the ")
    is_itself = name in statement or _ITSELF.search(statement)
    if not is_itself or not _NUMBER.search(statement.replace(name, "")):
        return []
    found = []
    if _MONEY.search(statement):
        found.append([*_asking_the_price(subject), f"What is the price of {subject}?"])
    if _WEIGHT.search(statement):
        found.append(
            [
                f"How heavy is {subject}?",
                f"How much does {subject} weigh?",
                f"What does {subject} weigh?",
                f"What is the weight of {subject}?",
            ]
        )
    return found


def _asking_the_price(subject: str) -> list[str]:
    return [
        f"How much does {subject} cost?",
        f"What does {subject} cost?",
        f"How much is {subject}?",
        f"What do I pay for {subject}?",
    ]


def said_of(statement: str) -> str:
    """What a sentence says something of, where its form shows it: `list price`; empty elsewhere."""
    found = _BEGIN.match(statement)
    return found[1].strip().casefold() if found else ""


def is_done_by(statement: str) -> bool:
    """Whether somebody with a name does it: `Repairs are done by Kim`."""
    return bool(re.search(r"\bby (?:[a-z]+ ){0,3}[A-Z]", statement))


def topics(statement: str, own: str) -> list[str]:
    """What a sentence tells of its subject: as its form shows, and in the model's `own` words where
    none of them is the sentence's. Those are as often its answer ("is a pine": "the pine of …"),
    and of a part of it where the sentence begins with one ("the tower of the church")."""
    found = [said_of(statement), *_MEASURED.findall(statement.casefold())]
    own = _ARTICLE.sub("", own)
    said = set(re.findall(r"\w+", statement.casefold()))
    words = set(re.findall(r"\w+", own.casefold()))
    is_itself = found[0] or _ITSELF.search(statement)
    if is_itself and (not words & said or words <= set(found[0].split())):
        found.append(own)
    return list(dict.fromkeys(found))


def about_topic(topic: str, statement: str, subject: str, names_somebody: bool) -> list[str]:
    """Questions after what `topic` names of the subject, of which the first stands for all."""
    many = topic.endswith("s") and not topic.endswith("ss")
    found = []
    if names_somebody:
        found += [
            f"Who does the {topic} of {subject}?",
            f"Who is responsible for the {topic} of {subject}?",
            f"Who takes care of the {topic} of {subject}?",
        ]
    if not many:
        found.append(f"What is the {topic} of {subject}?")
    if not many and _NUMBER.search(statement) and _SPAN.search(statement):
        found.append(f"How long is the {topic} of {subject}?")
    if topic.endswith("price") and topic == said_of(statement) and _MONEY.search(statement):
        found += _asking_the_price(subject)
    return [
        *found,
        f"Can you tell me about the {topic} of {subject}?",
        f"What do you know about the {topic} of {subject}?",
        f"{subject[:1].upper()}{subject[1:]}: what about the {topic}?",
    ]


def gives_what_is_asked(question: str, statement: str, names_somebody: bool) -> bool:
    """Whether a question word asks for a kind of thing that the statement holds."""
    asked = question.casefold()
    number = _NUMBER.search(statement)
    if re.search(r"\bhow long\b", asked):
        return bool(number and (_SPAN.search(statement) or _LENGTH.search(statement)))
    if re.search(r"\bhow heavy\b", asked):
        return bool(number and _WEIGHT.search(statement))
    if _HOW_LARGE.search(asked):
        return bool(number)
    for words, fits in (("when", _TIME), ("why", _REASON), ("where", _PLACE)):
        if re.match(rf"(?:since |from )?{words}\b", asked):
            return bool(fits.search(statement))
    if re.match(r"(?:from |to |with |by )?who(?:m|se)?\b", asked):
        return names_somebody
    return True
