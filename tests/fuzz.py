"""Damaged files of every format, until the time is up: `python tests/fuzz.py SECONDS [SEED]`.

Each is a sound file with random damage. Whatever comes of it, the reader gives sound items or a
reason, this process lives, and no reader hangs. A finding is written to the working folder.

`python tests/fuzz.py --atheris SUFFIX [libFuzzer's arguments]` drives one reader by coverage
instead, in one process, starting from tests/fuzz_corpus: `pip install atheris`. In place of a
SUFFIX it takes the name of a test of test_hostile_records.py, whose examples it then chooses.

`python tests/fuzz.py --records TEST SECONDS [SEED]` gives such a test examples by hypothesis, which
needs nothing else, until the time is up.
"""

import importlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if "--atheris" in sys.argv:
    import atheris

    with atheris.instrument_imports(
        include=["trainer", "openpyxl", "csv", "html", "gzip", "zipfile"]
    ):
        for module in ("openpyxl", "trainer.corpus.sandbox_child", "trainer.training.loop"):
            importlib.import_module(module)

from support import makers  # noqa: E402

from trainer.corpus.columns import Columns  # noqa: E402
from trainer.corpus.examples import Item, Notice, SkippedRecord, Text, Unusable  # noqa: E402
from trainer.corpus.formats import format_of, read  # noqa: E402
from trainer.corpus.sandbox import Sandbox, SandboxLimits  # noqa: E402

LIMITS = SandboxLimits(memory_bytes=1 << 30, seconds=20)
RECORDS = [
    {"question": "Why is it “so”?", "answer": "Because, as 3 of 4 say,\n\nit is."},
    {"prompt": "Once", "completion": " upon a time"},
    {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]},
    {"text": "Grüße, 世界 😀"},
]
TABLE = 'question,answer\n"Why, ""so""?",Because\r\nWho?,"One\nand two"\n'
PROSE = "# Guide\n\nUse\n---\n\n```\n# code\n```\n\nA line. Grüße.\n\n" * 3
SEEDS: dict[str, bytes] = {
    "a.txt": PROSE.encode(),
    "b.txt": PROSE.encode("utf-16"),
    "c.txt": "Les élèves français étudient. ".encode("cp1252") * 3,
    "a.md": PROSE.encode(),
    "a.rst": b"=====\nGuide\n=====\n\nUse\n---\n\nText\n",
    "a.html": b"<html><body><h1>A</h1><p>b &amp; c<table><tr><td>d</table><ul><li>e</ul></body>",
    "a.jsonl": makers.jsonl(*RECORDS),
    "a.json": makers.jsonl(RECORDS),
    "a.csv": TABLE.encode(),
    "a.tsv": TABLE.replace(",", "\t").encode(),
    "a.parquet": makers.parquet([RECORDS[0]] * 5),
    "b.parquet": makers.parquet([RECORDS[2]] * 5, compression="zstd"),
    "a.pdf": makers.pdf("First", "Second"),
    "b.pdf": makers.pdf_bomb(0),
    "a.docx": makers.docx(("Title", "A"), ("Heading 1", "B"), ("Normal", "c"), rows=[["d", "e"]]),
    "a.pptx": makers.pptx(("A", "b\nc"), ("D", "e")),
    "a.epub": makers.epub("<h1>A</h1><p>b</p>", "<p>c</p>"),
    "a.xlsx": makers.xlsx([["question", "answer"], ["Why?", "So"]]),
    "a.arrow": makers.arrow([RECORDS[0]] * 5),
    "a.txt.gz": makers.gz(PROSE.encode()),
    "a.jsonl.zst": makers.zst(makers.jsonl(*RECORDS)),
}
TELLING = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b"{", b"[" * 2000, b"\xed\xa0\x80"),
    *(b"\\ud800", b"<div>" * 2000, b"9" * 5000, b"%PDF-", b"PAR1", b"\xff\xff\xff\x7f", b"\x80"),
)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to four random changes."""
    for _ in range(chance.randint(1, 4)):
        at, other = (chance.randrange(len(data) + 1) for _ in range(2))
        low, high = min(at, other), max(at, other)
        match chance.randrange(6):
            case 0:  # some bytes
                wrong = bytearray(data)
                for _ in range(chance.randint(1, 8) if data else 0):
                    wrong[chance.randrange(len(wrong))] = chance.randrange(256)
                data = bytes(wrong)
            case 1:
                data = data[:at]
            case 2:
                data = data[:low] + data[high:]
            case 3:
                data = data[:at] + chance.choice(TELLING) + data[at:]
            case 4:
                data = data[:high] + data[low:high] * chance.randint(1, 20) + data[high:]
            case 5:
                data = data[low:high] + data[:low] + data[high:]
        data = data[: 1 << 20]
    return data


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) without end, the same ones for the same seed."""
    chance = random.Random(seed)
    while True:
        for name, sound in SEEDS.items():
            yield name, damaged(sound, chance)


def outcome(path: Path, sandbox: Sandbox) -> str:
    """What became of a file: "read", "refused" or "a limit". Raises what no reader may raise."""
    form = format_of(path.name)
    try:
        items = (sandbox.read if form.needs_limits else read)(path, form, Columns())
        for item in items:
            check(item)
    except Unusable as reason:
        words = str(reason)
        assert words and "\n" not in words, repr(words)
        is_limit = any(mark in words for mark in ("crashed", "took more", "needs more"))
        return "a limit" if is_limit else "refused"
    return "read"


def check(item: Item) -> None:
    if isinstance(item, Notice | SkippedRecord):
        return
    for part in item.parts:
        assert part.strip() and "\0" not in part
        part.encode()
    if isinstance(item, Text):
        assert all(0 <= heading.at < len(item.text) and heading.title for heading in item.headings)


def replay(count: int, seed: int, folder: Path, seconds: float = 1e9) -> Counter[str]:
    """Read `count` damaged files, or as many as there is time for; how many met what end."""
    found: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with Sandbox(LIMITS) as sandbox:
        for (name, content), _ in zip(cases(seed), range(count), strict=False):
            path = folder / name
            path.write_bytes(content)
            found[outcome(path, sandbox)] += 1
            if time.monotonic() > end:
                break
    return found


READERS = (
    *(".txt", ".md", ".rst", ".html", ".pdf", ".docx", ".jsonl", ".json", ".csv", ".tsv"),
    *(".parquet", ".txt.gz", ".jsonl.zst"),
)


def replay_kept(folder: Path) -> Counter[str]:
    """Read what the runs by coverage kept, as the job would."""
    found: Counter[str] = Counter()
    with Sandbox(LIMITS) as sandbox:
        for suffix in READERS:
            for path in kept(suffix):
                copy = folder / f"a{suffix}"
                copy.write_bytes(file_of(suffix, path.read_bytes()))
                found[outcome(copy, sandbox)] += 1
    return found


def sound(suffix: str) -> list[bytes]:
    """The seeds of one format."""
    return [content for name, content in SEEDS.items() if name.endswith(suffix)]


def file_of(suffix: str, data: bytes) -> bytes:
    """The file that `data` stands for. The sums inside a container would hide all but the
    container from a fuzzer, so data that is none becomes its content."""
    if suffix == ".docx" and not data.startswith(b"PK"):
        return makers.docx_with("word/document.xml", data)
    if suffix == ".jsonl.zst" and not data.startswith(b"\x28\xb5\x2f\xfd"):
        return makers.zst(data)
    if suffix == ".txt.gz" and not data.startswith(b"\x1f\x8b"):
        return makers.gz(data)
    return data


def read_or_refuse(path: Path) -> None:
    """In this process: what the child of `Sandbox` does, and what this process does itself."""
    form = format_of(path.name)
    items = []
    try:
        items += read(path, form, Columns())
    except Unusable:
        return
    except Exception:  # the child tells it as a reason; in this process nothing may get here
        if not form.needs_limits:
            raise
    for item in items:
        check(item)


def by_coverage(suffix: str, arguments: list[str]) -> None:
    """libFuzzer, with its usual arguments."""
    import atheris

    if suffix.startswith("test_"):
        test = test_of_records(suffix)
        atheris.Setup([sys.argv[0], *arguments], test.hypothesis.fuzz_one_input)
        atheris.Fuzz()
    start = Path.cwd() / "fuzz-work" / suffix[1:]  # libFuzzer adds what reaches something new
    start.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate([*sound(suffix), *map(Path.read_bytes, kept(suffix))]):
        (start / f"seed-{number}").write_bytes(content)
    path = Path(tempfile.mkdtemp()) / f"a{suffix}"

    def one(data: bytes) -> None:
        path.write_bytes(file_of(suffix, data))
        read_or_refuse(path)

    atheris.Setup([sys.argv[0], str(start), *arguments], one)
    atheris.Fuzz()


def by_time(name: str, seconds: float, seed: int) -> None:
    """Examples by hypothesis for one test of records, with seeds that go up."""
    from hypothesis import seed as seeded

    os.environ["FUZZ_EXAMPLES"] = "200"  # of each seed
    test, given, end = test_of_records(name), 0, time.monotonic() + seconds
    inner = test.hypothesis.inner_test

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal given
        given += 1
        inner(*arguments, **named)

    test.hypothesis.inner_test = counted
    first = seed
    while time.monotonic() < end:
        seeded(seed)(test)()
        seed += 1
    print(f"{name}: {given} examples, seeds {first} to {seed - 1}")


def test_of_records(name: str) -> Any:
    sys.path.insert(0, str(ROOT / "tests" / "models"))
    return getattr(importlib.import_module("test_hostile_records"), name)


def kept(suffix: str) -> list[Path]:
    """The corpus of one format."""
    return sorted((ROOT / "tests" / "fuzz_corpus").glob(f"{suffix[1:]}-*"))


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--atheris"]:
        by_coverage(arguments[1], arguments[2:])
        return 0
    if arguments[:1] == ["--records"]:
        by_time(arguments[1], float(arguments[2]), int((arguments[3:] or ["0"])[0]))
        return 0
    seconds, seed = float(arguments[0]), int((arguments[1:] or ["0"])[0])
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = replay(1 << 62, seed, Path(folder), seconds)
        except Exception:
            newest = max(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime)
            finding = newest.rename(Path.cwd() / f"finding-{newest.name}")
            print(f"seed {seed}: {finding}", file=sys.stderr)
            raise
    print(f"seed {seed}: {found.total()} files: {dict(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
