"""Whatever lies in the data folder, the job ends in one sentence or goes on, and stays alive."""

import json
import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support import makers
from support.corpora import Corpus, read_corpus
from support.jobs import run_command, run_here

from trainer.corpus.reader import Source
from trainer.corpus.sandbox import SandboxLimits
from trainer.errors import DataError
from trainer.runtime import keys
from trainer.storage import fetch

Maker = Callable[[Path], object]
LIMITS = SandboxLimits(memory_bytes=1 << 30, seconds=120)
NOISE = random.Random(7).randbytes(5000)
GOOD = makers.jsonl(*({"text": f"record {number}"} for number in range(40)))
PROSE = b"A paragraph of ordinary words, which says nothing much. " * 20
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "'
    + b"ha" * 500
    + b'">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 50) for n in range(8))
    + b"]><l>&i;</l>"
)


def file(name: str, content: bytes) -> Maker:
    return lambda folder: (folder / name).write_bytes(content)


def lines(*found: bytes) -> Maker:
    return file("a.jsonl", b"\n".join(found) + b"\n")


def turns(*pairs: tuple[str, object]) -> Maker:
    messages = [{"role": role, "content": content} for role, content in pairs]
    return file("a.jsonl", makers.jsonl({"messages": messages}))


def one_gigabyte_line(folder: Path) -> None:
    with (folder / "a.txt").open("wb") as target:
        for _ in range(1 << 10):
            target.write(b"x" * (1 << 20))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.txt")


def link_out(folder: Path) -> None:
    (folder.parent / "secret.txt").write_text("a secret")
    (folder / "a.txt").symlink_to(folder.parent / "secret.txt")


def folding_keys(folder: Path) -> None:
    keys.refuse_collisions(["docs/Guide.txt", "docs/guide.txt"], "s3://bucket/")


def repeating_parquet(folder: Path) -> None:
    record = {"text": "the same words again " * 500}
    (folder / "a.parquet").write_bytes(makers.parquet([record] * 5_000))


def loop_of_pages() -> bytes:
    return makers.pdf("a").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")


def huge_zst_window() -> bytes:
    return b"\x28\xb5\x2f\xfd\x00" + bytes([0xA8]) + b"\x00" * 64  # a window of 2 GiB


HOSTILE: dict[str, tuple[Maker, int, str]] = {
    # Text
    "empty": (file("a.txt", b""), 10, r"a\.txt: the file is empty"),
    "white space": (file("a.md", b" \r\n\t\n"), 10, r"a\.md: the file is empty"),
    "a mark and nothing": (file("a.txt", b"\xef\xbb\xbf"), 10, r"a\.txt: the file is empty"),
    "no words": (file("a.txt", b"12.50 -- 17 %\n"), 10, "holds no words"),
    "damaged UTF-8": (
        file("a.txt", "grüße über ".encode() + b"\xff."),
        10,
        r"a\.txt: byte 14 is not UTF-8; save the file as UTF-8",
    ),
    "UTF-8 cut off": (file("a.txt", PROSE + b"\xe2\x82"), 10, "byte 1120 is not UTF-8"),
    "windows-1252": (file("a.txt", b"caf\xe9 au lait"), 0, "byte 3 is not UTF-8; read as cp1252"),
    "UTF-16 with a mark": (file("a.txt", "Grüße".encode("utf-16")), 0, "Grüße"),
    "UTF-16 without": (file("a.txt", "Hello world".encode("utf-16-le")), 0, "read as UTF-16-LE"),
    "UTF-16 of odd length": (file("a.txt", b"\xff\xfea\0b"), 10, "byte 4 is not UTF-16-LE"),
    "UTF-16 half a pair": (file("a.txt", b"\xff\xfe\0\xd8a\0"), 10, "byte 2 is not UTF-16-LE"),
    "UTF-32 with a mark": (file("a.txt", "Grüße".encode("utf-32")), 0, "Grüße"),
    "NUL bytes": (file("a.txt", b"one\0two"), 10, "holds NUL bytes: binary"),
    "noise": (file("a.txt", NOISE.replace(b"\0", b"\x81")), 10, "not UTF-8.*binary"),
    "a line of 1 GB": (one_gigabyte_line, 10, "line 1 is longer than 16 Mi characters"),
    "a ZIP named .txt": (file("a.txt", makers.docx(("Normal", "a"))), 10, "it is a ZIP archive"),
    "a PDF named .md": (file("a.md", makers.pdf("a")), 10, "it is a PDF whatever its name"),
    "an image named .txt": (file("a.txt", b"\x89PNG\r\n\x1a\n\0"), 10, "it is an image"),
    "a program named .csv": (file("a.csv", b"\x7fELF\x02\x01"), 10, "it is a program"),
    "gzip named .jsonl": (file("a.jsonl", makers.gz(GOOD)), 10, "it is gzip data"),
    # JSON
    "broken on line 17": (
        lines(*[b'{"text": "a%d"}' % n for n in range(16)], b'{"text": "b"'),
        10,
        r"a\.jsonl line 17: broken JSON",
    ),
    "nested 20,000 deep": (lines(b"[" * 20_000), 10, "line 1: JSON nested too deep"),
    "objects nested": (lines(b'{"a":' * 100_000), 10, "line 1: JSON nested too deep"),
    "half a pair": (lines(b'{"text": "a\\ud800"}'), 10, "half a surrogate pair at character 2"),
    "NUL in a string": (lines(b'{"text": "a\\u0000"}'), 10, "holds a NUL character"),
    "a list as text": (lines(b'{"text": [3]}'), 10, '"text" is a list, not text'),
    "a null as text": (lines(b'{"question": "q", "answer": null}'), 10, '"answer" is null'),
    "not a number": (lines(b'{"text": NaN}'), 10, '"text" is NaN, not text'),
    "5,000 digits": (lines(b'{"n": ' + b"9" * 5000 + b"}"), 10, "number that is too long"),
    "a weight of 401 digits": (
        lines(
            b'{"messages": [{"role": "user", "content": "a"},'
            b'{"role": "assistant", "content": "b", "weight": 1' + b"0" * 400 + b"}]}"
        ),
        10,
        r'line 1: "messages\[1\].weight" is 10{39}: a turn is trained',
    ),
    "a number as labels": (
        lines(b'{"question": "q", "choices": {"text": ["a", "b"], "label": 5}, "answer": "a"}'),
        10,
        'line 1: "choices" has labels that are a number, not a list',
    ),
    "an object as labels": (
        lines(
            b'{"question": "q", "choices": {"text": ["a", "b"], "label": {"a": 1, "b": 2}},'
            b'"answer": "A"}'
        ),
        10,
        'line 1: "choices" has labels that are an object, not a list',
    ),
    "keys that JSON has not": (
        lines(
            b'{"messages": [{"role": "user", "content": "a"},'
            b'{"role": "assistant", "content": "b"}], "tools": "[{1: 2, b\'x\': 3}]"}'
        ),
        10,
        "line 1: it is no readable record .keys must be str",
    ),
    "a number as results": (
        lines(b'{"data": {"question": "q"}, "annotations": [{"result": 5}]}'),
        10,
        "line 1: is a task of Label Studio with the data question and the results no columns",
    ),
    "missing columns": (
        lines(b'{"question": "q", "reply": "r"}'),
        10,
        r"needs text, prompt \+ completion, question \+ answer or messages; "
        "it has question, reply",
    ),
    "a thousand columns": (
        lines(json.dumps({f"c{n}": "" for n in range(1000)}).encode()),
        10,
        "it has c0, .* and 992 more",
    ),
    "a list as line": (lines(b'["text"]'), 10, "the line is a list, not an object"),
    "two records on a line": (lines(b'{"text": "a"}{"text": "b"}'), 10, "Extra data"),
    "empty answer": (lines(b'{"question": "q", "answer": " "}'), 10, '"answer" is empty'),
    "blank lines": (lines(b"", b"  ", b""), 10, r"a\.jsonl: it holds no records"),
    "no answer": (turns(("user", "a")), 10, "no assistant turn"),
    "a tool's turn": (turns(("tool", "b")), 10, "no assistant turn"),
    "an unknown role": (turns(("judge", "b")), 10, r'"messages\[0\].role" is judge and none'),
    "a list as role": (turns(("user", "a"), (["x"], "b")), 10, r'"messages\[1\].role" is none'),  # type: ignore[arg-type]
    "deep .json": (file("a.json", b"[" * 200_000), 10, r"a\.json: JSON nested too deep"),
    "a word as .json": (file("a.json", b'"hello"'), 10, "it is text, not a list of records"),
    ".json cut off": (file("a.json", b'[{"text": "a"},\n{"te'), 10, "broken JSON .* at line 2"),
    "no records": (file("a.json", b"[]"), 10, r"a\.json: it holds no records"),
    "numbers in .json": (file("a.json", b"[1, 2]"), 10, "record 1: the record is a number"),
    # CSV
    "a short row": (
        file("a.csv", b"question,answer\nq,a\nq\n"),
        10,
        r"a\.csv line 3: has 1 field and the header has 2",
    ),
    "a long row": (file("a.tsv", b"text\nq\ta\n"), 10, "line 2: has 2 fields and the header has 1"),
    "an open quote": (
        file("a.csv", b'question,answer\nq,a\nq,"never closed\nq,a\n'),
        10,
        r"a\.csv: line 3: a quote that opens here is never closed",
    ),
    "a quote inside": (file("a.csv", b'text\n"a"b\n'), 10, "line 2: a quote closes before"),
    "other columns": (file("a.csv", b"id,words\n1,hello\n"), 10, "line 2: .*; it has id, words"),
    "a column twice": (file("a.csv", b"text,text\na,b\n"), 10, "names 'text' twice"),
    "a header alone": (file("a.csv", b"question,answer\n"), 10, r"a\.csv: it holds no records"),
    "NUL in a row": (file("a.csv", b"text\na\0b\n"), 10, "holds NUL bytes"),
    "a field of 17 MB": (
        file("a.csv", b'text\n"' + (b"x" * 1023 + b"\n") * (17 << 10) + b'"\n'),
        10,
        "line 2: a field is longer than 16 Mi",
    ),
    "a field of two long lines": (
        file("a.csv", b'text\n"' + (b"x" * (9 << 20) + b"\n") * 2 + b'"\n'),
        10,
        "line 2: a field is longer than 16 Mi",
    ),
    "NA and null": (file("a.csv", b"question,answer\nNA,null\n"), 0, "NA null"),
    "old line ends": (file("a.csv", b"text\rone\rtwo\r"), 0, "one two"),
    # Parquet
    "garbage as Parquet": (
        file("a.parquet", NOISE),
        10,
        r"a\.parquet: it is no readable \.parquet",
    ),
    "Parquet cut off": (
        file("a.parquet", makers.parquet([{"text": "a"}])[:-20]),
        10,
        r"it is no readable \.parquet",
    ),
    "a false footer": (
        file("a.parquet", b"PAR1" + NOISE + struct.pack("<I", 2**31) + b"PAR1"),
        10,
        r"it is no readable \.parquet",
    ),
    "damaged pages": (
        file("a.parquet", b"PAR1" + NOISE[:50] + makers.parquet([{"text": "a" * 999}])[54:]),
        10,
        r"it is no readable \.parquet",
    ),
    "lists in Parquet": (
        file("a.parquet", makers.parquet([{"text": [3]}])),
        10,
        r"a\.parquet row 1: \"text\" is a list",
    ),
    "bytes in Parquet": (file("a.parquet", makers.parquet([{"text": b"a"}])), 10, "is binary"),
    "other columns of Parquet": (
        file("a.parquet", makers.parquet([{"id": 1, "words": "a"}])),
        10,
        "it has id, words",
    ),
    "repeating Parquet": (repeating_parquet, 10, "unpack to more than 16 MiB"),
    "garbage as Arrow": (file("a.arrow", NOISE), 10, r"it is no readable \.arrow"),
    "Arrow cut off": (
        file("a.arrow", makers.arrow([{"text": "a"}])[:-200]),
        10,
        r"it is no readable \.arrow",
    ),
    # Books and presentations
    "garbage as a book": (file("a.epub", NOISE), 10, r"it is no readable \.epub"),
    "a locked book": (file("a.epub", makers.epub("a", locked="OPS/p 0.xhtml")), 10, "it is locked"),
    "a book of nothing": (file("a.epub", makers.epub("<img/>")), 10, "the file is empty"),
    "garbage as slides": (file("a.pptx", NOISE), 10, r"it is no readable \.pptx"),
    "a Word file as slides": (
        file("a.pptx", makers.word("")),
        10,
        r"it is no readable \.pptx|empty",
    ),
    "laughing slides": (
        file("a.pptx", makers.zipped({"ppt/presentation.xml": LAUGHS.decode()})),
        10,
        r"a\.pptx: (it|reading|the file)",
    ),
    # Workbooks
    "garbage as a workbook": (file("a.xlsx", NOISE), 10, r"it is no readable \.xlsx"),
    "an old workbook": (file("a.xlsx", b"\xd0\xcf\x11\xe0" + NOISE), 10, r"an old \.xls;"),
    "a workbook cut off": (
        file("a.xlsx", makers.xlsx([["text"], ["a"]])[:2000]),
        10,
        r"it is no readable \.xlsx",
    ),
    "other columns of a workbook": (
        file("a.xlsx", makers.xlsx([["id", "words"], [1, "hello"]])),
        10,
        "Sheet row 2: needs .*; it has id, words",
    ),
    # PDF
    "a locked PDF": (file("a.pdf", makers.locked_pdf("a", "secret")), 10, "it is encrypted"),
    "a scanned PDF": (file("a.pdf", makers.pdf("", "")), 10, "holds no text: scanned pages"),
    "a PDF cut off": (file("a.pdf", makers.pdf("a")[:200]), 10, r"it is no readable \.pdf"),
    "garbage as PDF": (file("a.pdf", b"%PDF-1.7\n" + NOISE), 10, r"it is no readable \.pdf"),
    "pages in a loop": (file("a.pdf", loop_of_pages()), 10, r"a\.pdf: it "),
    "a PDF bomb": (
        file("a.pdf", makers.pdf_bomb(64)),
        10,
        r"a\.pdf: .*(memory|more than|readable|crashed)",
    ),
    "text as PDF": (file("a.pdf", PROSE), 10, r"it is no readable \.pdf"),
    # Word
    "garbage as Word": (file("a.docx", NOISE), 10, r"it is no readable \.docx"),
    "an old Word file": (file("a.docx", b"\xd0\xcf\x11\xe0" + NOISE), 10, "encrypted or an old"),
    "Word cut off": (
        file("a.docx", makers.docx(("Normal", "a"))[:5000]),
        10,
        r"it is no readable \.docx",
    ),
    "a Word bomb": (
        file("a.docx", makers.docx_with("word/document.xml", b" " * (64 << 20))),
        10,
        "unpack to more than 19 MiB",
    ),
    "a billion laughs": (
        file("a.docx", makers.docx_with("word/document.xml", LAUGHS)),
        10,
        r"a\.docx: (it|reading)",
    ),
    # HTML
    "nested 20,000 tags": (
        file("a.html", b"<div>" * 20_000 + b"deep"),
        10,
        r"a\.html: it is nested too deep",
    ),
    "navigation only": (file("a.html", b"<nav>Home</nav><script>x</script>"), 10, "no text beside"),
    "a missing page": (file("a.html", b"<h1>404 Not Found</h1>"), 10, "a placeholder page: # 404"),
    "NUL in HTML": (file("a.html", b"<p>a\0b</p>"), 10, "holds NUL bytes"),
    # Packed
    "a gzip bomb": (
        file("a.txt.gz", makers.gz(b"bomb " * (8 << 20))),
        10,
        r"a\.txt\.gz: its [\d,]+ bytes unpack to more than 16 MiB",
    ),
    "gzip cut off": (file("a.jsonl.gz", makers.gz(GOOD)[:-20]), 10, "the gzip data is cut off"),
    "garbage as gzip": (file("a.txt.gz", NOISE), 10, "the gzip data is broken"),
    "gzip with a false sum": (
        file("a.txt.gz", makers.gz(PROSE)[:-8] + b"\1\2\3\4\5\6\7\7"),
        10,
        "the gzip data is broken",
    ),
    "gzip in gzip": (file("a.txt.gz", makers.gz(makers.gz(PROSE))), 10, "it is gzip data"),
    "nothing as gzip": (file("a.txt.gz", b""), 10, r"a\.txt\.gz: the file is empty"),
    "a zstd bomb": (
        file("a.csv.zst", makers.zst(b"text\n" + b"bomb\n" * (8 << 20))),
        10,
        "unpack to more than 16 MiB",
    ),
    "zstd cut off": (file("a.txt.zst", makers.zst(PROSE)[:-5]), 10, "the zstd data is cut off"),
    "garbage as zstd": (file("a.txt.zst", NOISE), 10, "the zstd data is broken"),
    "a vast window": (file("a.txt.zst", huge_zst_window()), 10, "the zstd data is broken"),
    "two zstd frames": (file("a.txt.zst", makers.zst(b"one ") + makers.zst(b"two")), 0, "one two"),
    # Names and places
    "a pointer": (
        file("a.pdf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        10,
        r"a\.pdf: it is a Git LFS pointer and not the file itself; run `git lfs pull`",
    ),
    "what a desktop leaves": (file("._a.txt", b"\0\5\x16\7"), 10, "no files"),
    "another suffix": (file("a.exe", b"MZ"), 10, r"only a\.exe: unsupported \.exe"),
    "no suffix": (file("README", b"Hello"), 10, "unsupported file without a suffix"),
    "a packed PDF": (file("a.pdf.gz", b""), 10, r"unsupported \.pdf\.gz"),
    "a name with a newline": (file("a\nb.txt", b"a"), 10, "holds a control character"),
    "names that differ in case": (folding_keys, 10, r"Guide\.txt"),
    "a link out of the folder": (link_out, 10, "no files"),
    "a pipe": (pipe, 10, "no files"),
    "a folder named .txt": (lambda folder: (folder / "a.txt").mkdir(), 10, "no files"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_read_or_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, exit_code, words = HOSTILE[name]
    folder = tmp_path / "data"
    folder.mkdir()
    if exit_code:
        with pytest.raises(DataError, match=words) as failure:
            make(folder)
            read_folder(folder)
        assert failure.value.exit_code == exit_code
        assert len(str(failure.value)) < 700
        assert "\n" not in str(failure.value)
    else:
        make(folder)
        corpus = read_folder(folder)
        read = " ".join(part for example in corpus.examples for part in example.parts[1:])
        assert words in " ".join(
            [*corpus.notices, read.replace("user ", "").replace("assistant ", "")]
        )


def read_folder(folder: Path) -> Corpus:
    fetched = fetch(str(folder), folder.parent / "scratch", retry_minutes=0)
    sources = [Source(f.name, f.path, f.size) for f in fetched]
    return read_corpus(sources, max_skipped_share=0, limits=LIMITS)


def test_the_command_ends_with_10_and_one_sentence(tmp_path: Path) -> None:
    make, exit_code, words = HOSTILE["a billion laughs"]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    failed = run_command(tmp_path)
    assert failed.returncode == exit_code
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    assert re.search(words, failed.stderr)


def test_a_job_trains_on_what_is_sound_and_records_the_rest(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "good.csv").write_bytes(
        b"question,answer\n" + b"".join(b"What is %d?,It is %d\n" % (n, n) for n in range(60))
    )
    (data / "good.html").write_bytes(b"<h1>Plover</h1>" + b"<p>%s</p>" % PROSE)
    (data / "copy.md").write_bytes(b"# Plover\n\n" + PROSE)
    (data / "latin.txt").write_bytes(b"caf\xe9 au lait")
    for name in ("a gzip bomb", "a locked PDF", "another suffix"):
        HOSTILE[name][0](data)
    run = run_here(tmp_path, MAX_STEPS="2", MAX_LOSS_RATIO="1")
    counts = json.loads((run / "run.json").read_text())["data"]
    assert (counts["files"], counts["conversation"], counts["text"]) == (6, 60, 2)
    assert (counts["duplicates"] + counts["near_duplicates"], counts["skipped"]) == (1, 3)
    assert [reason.split(":")[0] for reason in counts["skipped_first"]] == [
        *("a.exe", "a.pdf", "a.txt.gz"),
    ]
    assert counts["assumed_first"] == [
        "latin.txt: byte 3 is not UTF-8; read as cp1252, which is a guess: save it as UTF-8 "
        "(`iconv -f cp1252 -t utf-8` where the guess is right)"
    ]
