"""A presentation -> Markdown: titles are headings, a table one row a line, notes below a slide.

A slide that is hidden is not shown to anybody; it is counted and not used.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.corpus.cells import cell, line
from trainer.corpus.examples import Notice, Unusable
from trainer.corpus.formulas import formula
from trainer.corpus.numbering import AutomaticNumbers
from trainer.corpus.office_charts import chart
from trainer.corpus.packages import Element, Package, child, kind_of, open_package, value
from trainer.corpus.symbols import readable
from trainer.runtime.wording import counted

_TITLES = ("title", "ctrTitle")
_DECORATION = ("ftr", "sldNum", "dt", "hdr", "sldImg")


def pptx(path: Path) -> Iterator[str | Notice]:
    """The words of each slide in the order in which they are shown."""
    with open_package(path) as package:
        main = next(iter(package.related("", "officeDocument")), "ppt/presentation.xml")
        if main not in package:
            raise Unusable("it is no readable .pptx (it holds no presentation)")
        targets = package.targets(main)
        listed = child(package.xml(main), "sldIdLst")
        hidden = 0
        for slide in listed if listed is not None else ():
            part = targets.get(_relationship(slide), "")
            if part in package:
                slide = package.xml(part)
                is_hidden = slide.get("show") in ("0", "false")
                hidden += is_hidden
                yield from () if is_hidden else _slide(package, part, slide)
        if hidden:
            yield Notice("hidden slides are not used", counted(hidden, "slide"))


def _slide(package: Package, part: str, slide: Element) -> Iterator[str]:
    yield from _blocks(_shapes(slide), package, part)
    for diagram in package.related(part, "diagramData"):
        yield from _texts(e for e in package.xml(diagram).iter() if kind_of(e) == "p")
    for notes in package.related(part, "notesSlide"):
        yield from _blocks(_shapes(package.xml(notes)), package, notes)


def _shapes(element: Element) -> Iterator[Element]:
    """Those that hold text, also inside of groups, each once."""
    for part in element:
        match kind_of(part):
            case "sp" | "tbl" | "chart":
                yield part
            case "Fallback":
                continue
            case _:
                yield from _shapes(part)


def _blocks(shapes: Iterable[Element], package: Package, part: str) -> Iterator[str]:
    targets = package.targets(part)
    titles_first = sorted(shapes, key=lambda shape: _placeholder(shape) not in _TITLES)
    for shape in titles_first:
        if kind_of(shape) == "tbl":
            rows = (row for row in shape if kind_of(row) == "tr")
            lines = (line([_cell(c) for c in row if kind_of(c) == "tc"]) for row in rows)
            if shown := [found for found in lines if found]:
                yield "\n".join(shown) + "\n\n"
        elif kind_of(shape) == "chart":
            target = targets.get(_relationship(shape), "")
            if target in package and (words := chart(package.xml(target))):
                yield f"{words}\n\n"
        elif _placeholder(shape) in _TITLES:
            if words := " ".join(_words(shape).split()):
                yield f"# {words}\n\n"
        elif _placeholder(shape) not in _DECORATION:
            body = child(shape, "txBody")
            yield from _texts(body if body is not None else ())


def _texts(paragraphs: Iterable[Element]) -> Iterator[str]:
    """Each on a line of its own, behind the number that PowerPoint shows."""
    paragraphs = list(paragraphs)
    marks = AutomaticNumbers(paragraphs)
    lines = [marks.of(p) + words for p in paragraphs if (words := _words(p).strip())]
    if lines:
        yield "\n".join(lines) + "\n\n"


def _placeholder(shape: Element) -> str:
    for part in ("nvSpPr",):
        found = child(shape, part, "nvPr", "ph")
        if found is not None:
            return value(found, "type") or "body"
    return ""


def _cell(element: Element) -> str:
    is_covered = value(element, "hMerge") == "1" or value(element, "vMerge") == "1"
    return "" if is_covered else cell(_words(element))


def _words(element: Element) -> str:
    """All text below it; paragraphs and line breaks part lines."""
    found = []
    for part in element:
        match kind_of(part):
            case "oMath" | "oMathPara":
                found.append(formula(part))
            case "Fallback":  # a picture of it
                continue
            case "t":
                found.append(readable(part.text or "", "")[0])
            case "br":
                found.append("\n")
            case "tab":
                found.append("\t")
            case "p":
                found.append("\n" + _words(part))
            case _:
                found.append(_words(part))
    return "".join(found)


def _relationship(element: Element) -> str:
    """Its `r:id`; it also has an `id` of its own, a number."""
    return next((v for key, v in element.attrib.items() if key.endswith("}id")), "")
