"""The README and the pages of docs/ that its reader is sent to, section by section."""

import re
from functools import cache

from support.cluster import ROOT

PAGES = ("data", "exit-codes", "kubernetes", "results", "scaling", "settings")


@cache
def page(name: str) -> str:
    """`README`, or a page of docs/ by its name."""
    return (ROOT / ("README.md" if name == "README" else f"docs/{name}.md")).read_text()


def section(title: str, of: str = "README") -> str:
    """One section of a page, such as "On Kubernetes" of the README."""
    return re.split(r"(?m)^## ", page(of).partition(f"\n## {title}\n")[2])[0]


def blocks(title: str, of: str = "README", *, language: str = "sh") -> list[str]:
    """The code of one section."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", section(title, of))
