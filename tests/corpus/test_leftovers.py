"""What desktops, notebooks and `datasets` leave beside files is no data."""

from pathlib import Path

import pytest
from support.corpora import read_corpus
from support.makers import arrow

from trainer.corpus.examples import Text
from trainer.corpus.leftovers import is_leftover
from trainer.corpus.reader import Source


@pytest.mark.parametrize(
    "name",
    [
        *("._f1.jsonl", "faq/._f1.jsonl", "__MACOSX/faq/f1.txt", "faq/~$rules.docx", "Thumbs.db"),
        *("faq/.ipynb_checkpoints/a-checkpoint.txt", ".DS_Store", "desktop.ini", ".git/a.md"),
        *(".Trash-1000/files/a.csv", ".Trash/a.csv", "docs/node_modules/marked/README.md"),
    ],
)
def test_a_leftover_is_passed_over(name: str) -> None:
    assert is_leftover(name, Path(name))


@pytest.mark.parametrize("name", ["state.json", "a._b.txt", "thumbs.txt", "git/a.md", "~a.txt"])
def test_a_file_of_a_like_name_is_data(name: str) -> None:
    assert not is_leftover(name, Path(name))


def test_a_folder_of_save_to_disk_is_its_rows(tmp_path: Path) -> None:
    files = {
        "data-00000-of-00001.arrow": arrow([{"text": "one"}, {"text": "two"}]),
        "dataset_info.json": b'{"features": {}}',
        "state.json": b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
        "._state.json": b"\0",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    corpus = read_corpus([Source(name, tmp_path / name) for name in files], max_skipped_share=0)
    assert corpus.examples == [Text("one"), Text("two")]
    assert (corpus.files, corpus.skipped) == (1, [])


def test_a_file_that_a_dot_hides_is_named_and_not_used(tmp_path: Path) -> None:
    names = [".faq.txt", ".old/faq.txt", "faq.txt"]
    (tmp_path / ".old").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    corpus = read_corpus([Source(name, tmp_path / name) for name in names], max_skipped_share=0)
    assert corpus.examples == [Text("faq.txt")]
    assert corpus.skipped == [f"{n}: hidden by a dot; rename it to use it" for n in names[:2]]
