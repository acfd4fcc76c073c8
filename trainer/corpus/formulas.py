"""Office's formulas as one line of text: a fraction is `(a + b)/2`, a root `√(x)`."""

from collections.abc import Iterator

from trainer.corpus.packages import Element, child, kind_of, value
from trainer.corpus.raised import subscript, superscript


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
    words = _of(element, "sup")
    raised = superscript(words)
    return raised if raised != words or not words else f"^{_grouped(words)}"


def _low(element: Element) -> str:
    words = _of(element, "sub")
    lowered = subscript(words)
    return lowered if lowered != words or not words else f"_{_grouped(words)}"


def _grouped(words: str) -> str:
    return words if words.isalnum() else f"({words})"
