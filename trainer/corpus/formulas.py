"""Formulas of Office and of web pages as one line: a fraction is `(a + b)/2`, a root `√(x)`."""

import re
from collections.abc import Iterator, Sequence

from trainer.corpus.packages import Element, child, kind_of, value
from trainer.corpus.raised import subscript, superscript

_UNSEEN = re.compile("[\u2061-\u2064]")  # that a function is applied, that two are multiplied
_ACCENTS = {  # that stand over a letter, as characters that join it
    **{
        "^": "\u0302",
        "\u02c6": "\u0302",
        "~": "\u0303",
        "\u02dc": "\u0303",
        "¯": "\u0304",
        "‾": "\u0304",
    },
    **{"˙": "\u0307", ".": "\u0307", "¨": "\u0308", "→": "\u20d7"},
}


def formula(element: Element) -> str:
    """The words of an `oMath` element, or of a part of one."""
    return "".join(_linear(element))


def _linear(element: Element) -> Iterator[str]:
    for part in element:
        match kind_of(part):
            case "t":
                yield part.text or ""
            case "f":
                yield f"{_grouped(_of(part, 'num'))}/{_grouped(_of(part, 'den'))}"
            case "sSup":
                yield _of(part, "e") + _high(part)
            case "sSub":
                yield _of(part, "e") + _low(part)
            case "sSubSup":
                yield _of(part, "e") + _low(part) + _high(part)
            case "rad":
                yield f"{superscript(_of(part, 'deg'))}√({_of(part, 'e')})"
            case "nary":
                sign = value(child(part, "naryPr", "chr")) or "∫"
                yield f"{sign}{_low(part)}{_high(part)} {_of(part, 'e')}"
            case "d":
                yield _delimited(part)
            case "func":
                yield f"{_of(part, 'fName')} {_of(part, 'e')}"
            case "limLow":
                yield _of(part, "e") + _lowered(_of(part, "lim"))
            case "limUpp":
                yield _of(part, "e") + _raised(_of(part, "lim"))
            case "sPre":
                yield _low(part) + _high(part) + _of(part, "e")
            case "acc":
                yield _of(part, "e") + (value(child(part, "accPr", "chr")) or "\u0302")
            case "mr":
                yield ", ".join(formula(cell) for cell in part) + "; "
            case kind if not kind.endswith("Pr"):
                yield from _linear(part)


def _delimited(part: Element) -> str:
    opening, closing, between = (
        value(child(part, "dPr", name)) for name in ("begChr", "endChr", "sepChr")
    )
    inner = (between or "|").join(formula(e) for e in part if kind_of(e) == "e")
    return f"{'(' if opening is None else opening}{inner}{')' if closing is None else closing}"


def _of(element: Element, kind: str) -> str:
    found = child(element, kind)
    return "" if found is None else formula(found)


def _high(element: Element) -> str:
    return _raised(_of(element, "sup"))


def _low(element: Element) -> str:
    return _lowered(_of(element, "sub"))


def _raised(words: str) -> str:
    raised = superscript(words)
    return raised if raised != words or not words else f"^{_grouped(words)}"


def _lowered(words: str) -> str:
    lowered = subscript(words)
    return lowered if lowered != words or not words else f"_{_grouped(words)}"


def _grouped(words: str) -> str:
    return words if words.isalnum() else f"({words})"


def mathml(element: Element) -> str:
    """The words of a `math` element; what its author typed, where the page says so."""
    for note in element.iter("annotation", "{*}annotation"):
        if "tex" in (note.get("encoding") or ""):
            return "".join(note.itertext()).strip()
    return element.get("alttext") or " ".join(_of_page(element).split())


def _of_page(element: Element) -> str:
    """One element of MathML, by its kind."""
    parts = [part for part in element if isinstance(part.tag, str)]
    said = [_of_page(part) for part in parts]
    first, *rest = said or [""]
    match kind_of(element), rest:
        case (("mi" | "mn" | "mo" | "mtext" | "ms"), _):
            return " ".join(_UNSEEN.sub("", "".join(element.itertext())).split())
        case "mfrac", [below] if element.get("linethickness") in ("0", "0px"):
            return f"{first} over {below}"  # a binomial
        case "mfrac", [below]:
            return f"{_grouped(first)}/{_grouped(below)}"
        case "msqrt", _:
            return f"√({''.join(said)})"
        case "mroot", [degree]:
            return f"{superscript(degree)}√({first})"
        case "mover", [above] if above in _ACCENTS and len(first) == 1:
            return first + _ACCENTS[above]
        case (("msup" | "mover"), [above]):
            return _grouped_base(first) + _raised(above)
        case (("msub" | "munder"), [below]):
            return first + _lowered(below)
        case (("msubsup" | "munderover"), [below, above]):
            return first + _lowered(below) + _raised(above)
        case "mfenced", _:
            inner = ", ".join(said)
            return f"{element.get('open', '(')}{inner}{element.get('close', ')')}"
        case "mtable", _:
            return "; ".join(said)
        case (("mtr" | "mlabeledtr"), _):
            return ", ".join(filter(None, said))
        case (("annotation" | "annotation-xml" | "mphantom" | "none" | "mprescripts"), _):
            return ""
        case "mspace", _:
            return " "
        case _:
            return _beside(parts, said)


def _beside(parts: Sequence[Element], said: Sequence[str]) -> str:
    """In a row: a number keeps its distance from a fraction behind it."""
    found = ""
    for part, words in zip(parts, said, strict=True):
        apart = found[-1:].isdigit() and kind_of(part) == "mfrac"
        found += f" {words}" if apart else words
    return found


def _grouped_base(words: str) -> str:
    return words if len(words) < 2 or words.isalnum() or words.endswith(")") else f"({words})"
