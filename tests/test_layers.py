"""The wings of trainer/ import only wings that stand above them; files of a wing make no circle."""

import ast
import re
from pathlib import Path

import pytest
from support.imports import FILES, MODULES, TRAINER, imports_of, modules_of, name_of
from support.jobs import ROOT

# In the order of allowed imports: a wing (folder or file) knows only those before it.
WINGS = [
    "errors",
    "uris",
    "labels",
    "options",
    "setting_checks",
    "setting_groups",
    "settings",
    "runtime",
    "kernels",
    "corpus",
    "distributed",
    "monitoring",
    "planner",
    "storage",
    "chat_api",
    "runs",
    "tokenization",
    "dataset",
    "models",
    "engine",
    "inference",
    "evaluation",
    "preparation",
    "export",
    "training",
    "reporting",
    "execution",
    "preflight",
    "commands",
    "documents",
    "job",
    "flags",
    "cli",
    "__main__",
    "launch",
]
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_CLASS = 350, 50, 200  # lines
S3_LIBRARIES = {"boto3", "botocore", "s3transfer"}


def wing_of(module: str) -> str:
    return module.split(".")[1]


def test_every_wing_has_its_place() -> None:
    found = {wing_of(module) for module in MODULES if module != "trainer"}
    assert found == set(WINGS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TRAINER)))
def test_a_file_imports_only_wings_above_its_own(path: Path) -> None:
    if path.parent == TRAINER and path.name == "__init__.py":
        assert not modules_of(path)
        return
    wing = WINGS.index(wing_of(name_of(path)))
    below = {other for other in modules_of(path) if WINGS.index(wing_of(other)) > wing}
    assert not below


def test_no_files_import_each_other_in_a_circle() -> None:
    """Taken away from the ends: what is left when nothing can be taken is in a circle."""
    left = {module: modules_of(path) for module, path in MODULES.items()}
    while ends := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in ends}
    assert not left


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_pages_name_every_wing_in_this_order(page: str) -> None:
    table = (ROOT / page).read_text().partition("| wing |")[2].partition("\n\n")[0]
    named = re.findall(r"`([^`|]+)`", " ".join(re.findall(r"(?m)^\|([^|]*)\|", table)))
    assert [name.removesuffix(".py").rstrip("/") for name in named] == WINGS


def test_only_storage_knows_boto3() -> None:
    users = {
        module
        for module, path in MODULES.items()
        if {name.partition(".")[0] for name in imports_of(path)} & S3_LIBRARIES
    }
    assert {wing_of(module) for module in users} <= {"storage"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TRAINER)))
def test_nothing_is_too_long_to_be_read_at_once(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            most = LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION
            assert (node.end_lineno or 0) - node.lineno < most, node.name


def test_no_two_test_files_have_one_name() -> None:
    """pytest takes the second one for the first, and collects nothing."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
