"""Limits of the child process: a file that breaks its reader costs that file only."""

import os
import re
import signal
from pathlib import Path

import pytest
from support import makers
from support.corpora import Corpus, read_corpus

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Text, Unusable
from trainer.corpus.formats import format_of
from trainer.corpus.reader import MOST_SLOW, Source
from trainer.corpus.sandbox import Sandbox, SandboxLimits
from trainer.errors import DataError


def read_with(limits: SandboxLimits, folder: Path, **files: bytes) -> Corpus:
    sources = []
    for key, content in files.items():
        name = key.replace("_", ".")
        (folder / name).write_bytes(content)
        sources.append(Source(name, folder / name))
    return read_corpus(sources, max_skipped_share=1, limits=limits)


def test_a_reader_that_needs_too_much_memory_costs_its_file_only(tmp_path: Path) -> None:
    tight = SandboxLimits(memory_bytes=256 << 20)
    many_objects = b"[" + b"{}," * 5_000_000 + b"{}]"
    corpus = read_with(tight, tmp_path, a_json=many_objects, b_html=b"<p>words")
    assert corpus.examples == [Text("words")]
    (skip,) = corpus.skipped
    assert skip == ("a.json: reading it needs more than 256 MiB of memory; split or convert it")


def test_a_reader_that_takes_too_long_costs_its_file_only(tmp_path: Path) -> None:
    hasty = SandboxLimits(seconds=0.01, seconds_per_mib=0)
    corpus = read_with(hasty, tmp_path, a_pdf=makers.pdf("a"), b_txt=b"words")
    assert corpus.examples == [Text("words")]
    assert "a.pdf: reading it took more than 0 s" in corpus.skipped[0]


def test_many_files_that_take_too_long_end_the_run(tmp_path: Path) -> None:
    hasty = SandboxLimits(seconds=0.001, seconds_per_mib=0)
    pages = {f"page{n}_html": b"<p>words" for n in range(MOST_SLOW + 1)}
    with pytest.raises(DataError, match=r"11 of 11 files were given up for the time they take: "):
        read_with(hasty, tmp_path, **pages)


def test_a_reader_that_crashes_costs_its_file_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(makers.gz(makers.jsonl(*({"text": f"{n} " * 99} for n in range(5000)))))
    with Sandbox() as sandbox:
        items = sandbox.read(path, format_of(path.name), Columns())
        assert next(items) == Text("0 " * 99)
        (child,) = children(os.getpid())
        os.kill(child, signal.SIGSEGV)
        with pytest.raises(Unusable, match=r"crashed \(SIGSEGV\): it is no sound \.jsonl\.gz"):
            list(items)
        assert len(list(sandbox.read(path, format_of(path.name), Columns()))) == 5000


def test_the_reader_knows_no_secret_and_ends_with_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-value")
    path = tmp_path / "a.html"
    path.write_bytes(b"<p>words")
    with Sandbox() as sandbox:
        assert list(sandbox.read(path, format_of(path.name), Columns())) == [Text("words")]
        (child,) = children(os.getpid())
        if os.geteuid() == 0:  # it shows nobody else
            environment = Path(f"/proc/{child}/environ").read_bytes()
            assert b"PATH=" in environment and b"secret" not in environment
        limits = Path(f"/proc/{child}/limits").read_text()
        assert re.search(rf"Max address space +{2 << 30} ", limits)
        assert re.search(r"Max file size +0 ", limits)
        if sandbox.lacks == ():
            status = Path(f"/proc/{child}/status").read_text()
            assert re.search(r"NoNewPrivs:\s+1\n", status) and re.search(r"Seccomp:\s+2\n", status)
    assert children(os.getpid()) == []


def children(pid: int) -> list[int]:
    """The readers that this process has started."""
    found = [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [
        n
        for n in found
        if b"trainer.corpus.sandbox_child" in Path(f"/proc/{n}/cmdline").read_bytes()
    ]
