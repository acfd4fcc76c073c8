"""The docs name what there is: links lead somewhere, choices are short, the map is the code's."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from support.jobs import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HISTORY = {"CHANGELOG.md", "glossary.md"}  # which have old names too
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
FOLDERS = ("trainer", "tests", "scripts", "bench", "docker", "k8s")
FILES = [
    "/entrypoint.py",
    *(f"/{p.relative_to(ROOT)}" for f in FOLDERS for p in (ROOT / f).rglob("*")),
]
ELSEWHERE = {"boto3/crt.py"}


def each(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=each)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in HISTORY], ids=each)
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py)`", page.read_text()):
        assert name in ELSEWHERE or any(file.endswith(f"/{name}") for file in FILES), name


@pytest.mark.parametrize("page", DECISIONS, ids=each)
def test_a_choice_is_short_and_listed_and_its_figures_stand_behind_it(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 40
    assert f"]({page.name})" in (page.parent / "README.md").read_text()
    figures = page.parent.parent / "measurements" / page.name
    assert not figures.exists() or f"](../measurements/{page.name})" in page.read_text()


def test_the_map_of_the_code_is_that_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("code_map", ROOT / "scripts" / "code_map.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "design.md").read_text()
    assert module.code_map() in page, "run: .venv/bin/python scripts/code_map.py --write"
