"""Which files of trainer/ import which."""

import ast
from collections.abc import Iterator
from pathlib import Path

from support.jobs import ROOT

TRAINER = ROOT / "trainer"
FILES = sorted(TRAINER.rglob("*.py"))


def name_of(path: Path) -> str:
    """`trainer/storage/local.py` is trainer.storage.local; a wing's `__init__.py` is the wing."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports_of(path: Path) -> Iterator[str]:
    """Every imported name, dotted and whole; those for the type checker alone count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_of(path: Path) -> set[str]:
    """The files of trainer/ that it imports; a name out of a file counts as that file."""
    found = set()
    for name in imports_of(path):
        while name.startswith("trainer.") and name not in MODULES:
            name = name.rpartition(".")[0]
        if name in MODULES and name != "trainer":
            found.add(name)
    return found - {name_of(path)}


def modules_below(*modules: str) -> set[Path]:
    """The files of `modules` and of all that they import, and so on."""
    found: set[str] = set()
    waiting = {*modules}
    while waiting:
        found |= waiting
        waiting = {other for name in waiting for other in modules_of(MODULES[name])} - found
    return {MODULES[name] for name in found}
