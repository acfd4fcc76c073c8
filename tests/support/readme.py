"""The README, section by section."""

import re

from support.cluster import ROOT


def section(title: str) -> str:
    """One section of the README."""
    text = (ROOT / "README.md").read_text()
    return re.split(r"(?m)^## ", text.partition(f"\n## {title}\n")[2])[0]
