"""Questions that the form of an English sentence gives, whatever it is about: what it says under a
condition, how something is done, what something is. No model is asked for them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# A form, and the wordings of the question that it answers: the first stands for all.
Wordings = Callable[[re.Match[str]], list[str]]

_SAID = {"the", "a", "an", "all", "any", "each", "every", "some", "most", "no", "your", "you", "we",
         "our", "many", "both", "other", "one", "two", "if", "when", "there"}  # fmt: skip
_LEANS = re.compile(
    r"\b(?:this|that|these|those|it|its|they|them|their|he|she|his|her|"
    r"here|above|below|following|former|latter|same|other way)\b",
    re.I,
)
_MINE = [
    (re.compile(rf"\b{words}\b", re.IGNORECASE), mine)
    for words, mine in (
        ("(?:for|to) yourself", "myself"),
        ("yourself", "myself"),
        ("you are", "I am"),
        ("you're", "I am"),
        ("you've", "I have"),
        ("you'll", "I will"),
        ("you'd", "I would"),
        ("your", "my"),
        ("(?<=for )you", "me"),
        ("(?<=allow )you", "me"),
        ("you", "I"),
    )
]
_ALSO = r"(?:(?:also|then|even|always|still|either|now|\w+ly) )*"
_WAY = r"(?:by (?=\w+ing\b)|using |with |via |through )"
_POINTS = re.compile(r"(?:please )?(?:see|refer|check out|consult|read)\b", re.IGNORECASE)
_VERB = r"\b(?:is|are|was|were|has|have|can|will|must|may|should|does|do|there)\b"
_NO_NOUN = (
    r"(?!(?:if|when|while|once|for|from|in|to|with|by|as|at|on|after|before|since|until|there|it|"
    r"they|what|which|you|we|i|note)\b)"
)
_NOUN = (
    r"(?:(?!(?:is|are|was|were|has|have|can|will|must|may|should|does|do|not|you|we|it|they|i|one|"
    r"that|what|which|who|if|when|there)\b)[^\s,;:]+ )"
)


@dataclass(frozen=True)
class Form:
    """Wordings of a question that a sentence answers by its form; `named` asks what something is,
    by its name."""

    questions: list[str]
    named: bool


def questions(statement: str, beside: str, *, about: bool = True) -> list[Form]:
    """Of each form that the statement has, `about` what it begins with too; `beside` is the text in
    which it stands, which shows whether its first word is a name."""
    text = _lowered(statement.strip().rstrip(".!"), beside)
    found = []
    for form, wordings in [*_FORMS, (_ABOUT, _about)] if about else _FORMS:
        if (match := form.match(text)) and (some := list(_asked(wordings(match)))):
            found.append(Form(some, wordings in (_what, _entry)))
    return found


def _lowered(text: str, beside: str) -> str:
    first, _, rest = text.partition(" ")
    small = first[:1].lower() + first[1:]
    known = small in _SAID or re.search(rf"(?<![\w`]){re.escape(small)}(?![\w`])", beside)
    is_word = first[1:].islower() or len(first) == 1
    return f"{small} {rest}" if known and is_word else text


def _asked(texts: list[str]) -> Iterator[str]:
    """With a capital; not what nobody understands without the text."""
    for text in texts:
        text = " ".join(text.split()).replace(" ?", "?")
        if not _LEANS.search(_AS_ASKED.sub("", text)):
            yield text[:1].upper() + text[1:]


def _mine(text: str) -> str:
    """In the words of who asks."""
    for theirs, mine in _MINE:
        text = theirs.sub(mine, text)
    return text.strip()


# Words of our own wordings that lean on nothing.
_AS_ASKED = re.compile(r"\b(?:is it that|is it possible|the reason that)\b", re.IGNORECASE)


def _part(text: str) -> str:
    """The first clause."""
    return re.split(r",|;| \(|\. | (?:which|so that|because|since|unless|if|when)\b", text)[
        0
    ].strip()


def _condition(m: re.Match[str]) -> list[str]:
    word, condition, rest = m[1].lower(), m[2], m[3]
    acting = re.match(r"(?:not )?\w+(?:ing|ed)\b", condition)  # without a subject of its own
    if acting and (len(condition.split()) > 8 or re.search(_VERB, condition)):
        return []
    if _POINTS.match(rest) or "e.g" in condition or "i.e" in condition:
        return []
    wants = rf"you (?:really |do |ever )*(?:need|want|wish|would like|have) to {_ALSO}(.+)"
    wanted = re.match(wants, condition)
    if wanted:
        return _way(wanted[1])
    condition = _mine(condition)
    acts = re.search(r"\b(?:you|we)\b", rest) or re.match(r"(?:use|try|set|pass|call|add)\b", rest)
    does = "should I do" if acts else "happens"
    return [
        f"What {does} {word} {condition}?",
        f"What if {condition}?" if word == "if" else f"What is the case {word} {condition}?",
        f"Can you tell me what {'to do' if acts else 'happens'} {word} {condition}?",
        f"What is there to know {word} {condition}?",
        f"{word} {condition}, what then?",
    ]


def _done(text: str, least: int = 2) -> str:
    """What the first clause says is done, in the words of who asks; empty below `least` words."""
    done = _mine(_part(text))
    return done if len(done.split()) >= least else ""


def _way(done: str) -> list[str]:
    done = _done(done)
    if not done:
        return []
    return [
        f"How can I {done}?",
        f"How do I {done}?",
        f"What do I have to do to {done}?",
        f"What is the way to {done}?",
        f"I want to {done}. How does one do so?",
    ]


def _means(done: str) -> list[str]:
    done = _done(done)
    if not done:
        return []
    return [
        f"What can I use to {done}?",
        f"How can I {done}?",
        f"What is there to {done}?",
        f"How do I {done}?",
        f"I want to {done}. What helps?",
    ]


def _may(m: re.Match[str]) -> list[str]:
    done = _done(m[1], least=3)
    if not done or re.search(r"\d", done):
        return []
    return [
        f"Can I {done}?",
        f"Is it possible to {done}?",
        f"May I {done}?",
        f"Is there a way to {done}?",
    ]


def _reason(m: re.Match[str]) -> list[str]:
    said = _mine(m[1])
    return [f"Why is it that {said}?", f"What is the reason that {said}?", f"How come {said}?"]


def _counted(m: re.Match[str]) -> list[str]:
    named = _mine(m[1])
    return [
        f"How many {named} are there?",
        f"Which {named} are there?",
        f"Can you tell me the {named}?",
        f"What {named} are there?",
    ]


def _what(m: re.Match[str]) -> list[str]:
    named, verb = _mine(m[1]), m[2]
    return [
        f"What {verb} {named}?",
        f"Can you tell me what {named} {verb}?",
        f"What do you know about {named}?",
        f"How would you describe {named}?",
        f"Can you explain what {named} {verb}?",
    ]


def _entry(m: re.Match[str]) -> list[str]:
    named = _mine(m[1])
    return [
        f"What is {named}?",
        f"What is {named} for?",
        f"Can you tell me what {named} is?",
        f"What do you know about {named}?",
        f"Can you explain {named}?",
    ]


def _about(m: re.Match[str]) -> list[str]:
    named = _mine(m[1])
    words = re.sub(r"^(?:the|an?) ", "", named).split()
    # `the decision` says little to whoever does not have the text
    is_known = len(words) > 1 or not named.startswith("the ") or "`" in named
    if not is_known or not any(re.search(r"[^\W\d_]{3}", word) for word in words):
        return []
    return [
        f"What do you know about {named}?",
        f"Can you tell me about {named}?",
        f"What about {named}?",
        f"What is there to know about {named}?",
        f"What do the documents say about {named}?",
    ]


def _allowed(m: re.Match[str]) -> list[str]:
    named, done = _mine(m[1]), _mine(_part(m[3]))
    verb = m[2].split()[0].lower().removesuffix("not")
    if re.search(r"\d", done):
        return []
    return [
        f"{verb} {named} be {done}?",
        f"Do you know whether {named} {verb} be {done}?",
        f"Can you tell me whether {named} {verb} be {done}?",
    ]


def _form(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


# What a sentence begins with, up to its verb, where that is one that shows.
_NO_TOPIC = (
    r"(?!\w+(?:ly|ing)\b|(?:any|all|each|every|some|most|no|often|also|sometimes|usually|please|"
    r"only|both|(?:the )?(?:first|second|third|last|next|other|latter|former|result|rest))\b)"
)
_ABOUT = _form(
    rf"({_NO_TOPIC}{_NO_NOUN}"
    rf"{_NOUN}{{1,5}}?)"
    r"(?:is|are|was|were|has|have|had|can|cannot|will|must|may|should|does|do)\b .+"
)
_NUMBERS = r"(?:two|three|four|five|six|seven|eight|nine|ten|twelve|\d+)"
_FORMS: list[tuple[re.Pattern[str], Wordings]] = [
    (_form(r"(if|when|whenever|once) (.{8,}?), (?:then |please )?(.{10,})"), _condition),
    (_form(r"(?:in order )?to ([a-z]+ .{4,}?), .{10,}"), lambda m: _way(m[1])),
    (_form(rf"(?:you|we) (?:can|may|could) {_ALSO}(.+?),? {_WAY}.+"), lambda m: _way(m[1])),
    (_form(rf"you (?:can|may|could) {_ALSO}((?:(?! (?:{_WAY})).)+)$"), _may),
    (_form(r"use (?:[^.]+?) to (?!an? |the )(.+)"), lambda m: _means(m[1])),
    (_form(r".+? (?:can|may|could) be used to (.+)"), lambda m: _means(m[1])),
    (
        _form(r"[^.]+? (?:allows?|lets?|enables?) (?:you|us|users) (?:to )?(.+)"),
        lambda m: _means(m[1]),
    ),
    (
        _form(rf"((?!\w+(?:s|ing|ed|ly)\b)[a-z]+ {_NOUN}+?)by (?=\w+ing\b).+"),
        lambda m: _way(m[1][:1].lower() + m[1][1:]),
    ),
    (_form(r"((?:the|an?|all|you|we|every|each|no)\b[^,.]+?),? because .+"), _reason),
    (
        _form(
            rf"there are (?:\w+ ){{0,2}}?{_NUMBERS} ([a-z]+(?: [a-z]+){{0,3}}?)"
            r"(?: (?:that|which|in|for|who|of|at|on|under|with)\b.*|\..*|)$"
        ),
        _counted,
    ),
    (
        _form(rf"({_NO_NOUN}{_NOUN}{{1,6}}?)(is|are) (?:an? |the |one of |[^ ]+ing )\w.+"),
        _what,
    ),
    (_form(r"(`[^`]+`|[\w.()]+) (?:-|\u2013|\u2014) [A-Za-z].{10,}"), _entry),
    (
        _form(
            rf"({_NO_NOUN}{_NOUN}{{1,8}}?)"
            r"(can|can not|cannot|must|must not|may not|should|should not) be (.+)"
        ),
        _allowed,
    ),
]
