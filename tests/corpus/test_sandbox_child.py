"""The child answers each request with its items and an end, whatever the file is."""

import json
import socket
import subprocess
import sys
from pathlib import Path

from support import makers
from support.jobs import ROOT

from trainer.corpus.columns import Columns
from trainer.corpus.formats import format_of
from trainer.corpus.sandbox_child import send_request


def answers(*paths: Path) -> list[list[object]]:
    requests, childs = socket.socketpair()
    for path in paths:
        with path.open("rb") as file:
            send_request(requests, file.fileno(), path, format_of(path.name), Columns())
    requests.shutdown(socket.SHUT_WR)
    ended = subprocess.run(
        [sys.executable, "-m", "trainer.corpus.sandbox_child", str(2 << 30)],
        cwd=ROOT,
        stdin=childs,
        capture_output=True,
        check=True,
    )
    assert not ended.stderr
    first, *found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert first[0] == "lacks"
    return found


def test_one_child_reads_files_one_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.html", "b.json", "c.pdf", "d.docx", "e.md.gz")]
    paths[0].write_bytes(b"<p>words")
    paths[1].write_bytes(makers.jsonl([{"prompt": "p", "completion": "c"}, {"text": [1]}]))
    paths[2].write_bytes(b"no PDF")
    paths[3].write_bytes(b"no document")
    paths[4].write_bytes(makers.gz(b"# One\n"))
    found = answers(*paths)
    assert found[:4] == [
        ["text", "words", []],
        ["end"],
        ["completion", "p", "c"],
        ["refused", "record 2", '"text" is a list, not text'],
    ]
    assert [kind for kind, *_ in found[4:]] == ["end", "unusable", "unusable", "text", "end"]
    assert "it is no readable .pdf (" in str(found[5])
    assert "it is no readable .docx (no ZIP archive)" in str(found[6])
    assert found[7] == ["text", "# One\n", [[0, 1, "One"]]]
