"""An archive is looked at before a library opens it."""

from pathlib import Path

import pytest
from support import makers

from trainer.corpus.examples import Unusable
from trainer.corpus.packages import check_size


@pytest.mark.parametrize("name, old", [("a.docx", ".doc"), ("a.xlsx", ".xls"), ("a.pptx", ".ppt")])
def test_an_old_or_locked_document_is_told_from_a_new_one(tmp_path: Path, name: str, old: str):
    (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0" + bytes(100))
    with pytest.raises(Unusable, match=rf"an old {old}; save it as {old}x without a password"):
        check_size(tmp_path / name)


def test_an_archive_may_not_unpack_to_much_more_than_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(makers.docx_with("word/document.xml", b" " * (64 << 20)))
    with pytest.raises(Unusable, match="unpack to more than"):
        check_size(path)
    path.write_bytes(makers.docx(("Normal", "a")))
    check_size(path)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"question,answer\nA?,B\n")
    with pytest.raises(Unusable, match=r"no readable .xlsx \(no ZIP archive\); save it again"):
        check_size(tmp_path / "a.xlsx")
