"""A format of export is a module and a line in a table; it is imported when it is asked for."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import ROOT

from trainer.export import exporters
from trainer.export.exporters import EXPORTERS, Export, exporter


@pytest.mark.parametrize("name", EXPORTERS)
def test_each_format_is_written_by_a_function_of_the_same_arguments(name: str) -> None:
    wanted = list(inspect.signature(Export.__call__).parameters)[1:]
    assert list(inspect.signature(exporter(name)).parameters) == wanted


def test_a_new_format_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters.py").write_text("def export(adapter, settings, parts, output):\n    ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(exporters, "EXPORTERS", {"letters": "letters", **EXPORTERS})
    assert exporter("letters").__module__ == "letters"


def test_no_format_is_imported_before_it_is_asked_for() -> None:
    program = "import sys, trainer.export.exporters; print({'gguf', 'torch'} & {*sys.modules})"
    out = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert out.strip() == "set()"
