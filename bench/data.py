"""Tokens a second from files to packed blocks, beside the plain way, on the same files in one run.

    python bench/text.py FOLDER 100 && python bench/data.py FOLDER [BLOCK_TOKENS]

The plain way is `load_dataset("text", sample_by="document")`, `map(tokenize)` and trl's packing,
each with a process for every core. Ours also decodes strictly, looks for copies and cuts at
structure. Each runs in a fresh process. Only the .txt and .md files of FOLDER are read. `TOKENIZER`
names another tokenizer than that of the built-in model; a real one is needed for figures that mean
something.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from trainer.runtime import malloc  # noqa: E402

TOKENIZER = os.environ.get("TOKENIZER", str(ROOT / "trainer/builtin/tiny"))

CORES = os.cpu_count()
WAYS = os.environ.get("WAYS", "plain ours").split()
ANONYMOUS_MIB: list[int] = []


def ours(folder: Path, names: list[str], block_tokens: int) -> int:
    from transformers import AutoTokenizer

    from trainer.dataset import pipeline
    from trainer.dataset.inputs import Inputs
    from trainer.settings import Settings
    from trainer.storage import Fetched

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    given = {"DATA_URI": "unused", "OUTPUT_URI": "unused", "MAX_LENGTH": str(block_tokens)}
    with tempfile.TemporaryDirectory() as scratch:
        given["SCRATCH_DIR"] = scratch
        settings = Settings.read({}, {f"QLORA_{name}": value for name, value in given.items()})
        # Digests of names stand in for the contents': fetching makes them, for both ways alike.
        found = [
            Fetched(n, folder, (folder / n).stat().st_size, hashlib.sha256(n.encode()).hexdigest())
            for n in names
        ]
        pipeline.prepare(settings, Inputs(found, []), tokenizer)
        # All of them, what is held out too.
        return sum(path.stat().st_size // 4 for path in Path(scratch).glob("tokens/*/tokens"))


def plain(folder: Path, names: list[str], block_tokens: int) -> int:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl.data_utils import pack_dataset

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset(
            "text",
            data_files=[str(folder / name) for name in names],
            sample_by="document",
            split="train",
            cache_dir=cache,
            num_proc=CORES,
        )
        rows = rows.map(
            lambda row: {"input_ids": tokenizer(row["text"])["input_ids"]},
            remove_columns=["text"],
            num_proc=CORES,
        )
        packed = pack_dataset(
            rows, block_tokens, strategy="bfd_split", map_kwargs={"num_proc": CORES}
        )
        return sum(len(row) for row in packed["input_ids"])


def names_in(folder: Path) -> Iterator[str]:
    """Not by rglob, whose paths would lie in the memory that is measured."""
    for inside, _, names in os.walk(folder):
        below = os.path.relpath(inside, folder)
        yield from (os.path.normpath(f"{below}/{n}") for n in names if n.endswith((".txt", ".md")))


def watch_memory() -> None:
    """Without what is mapped from files, which the kernel takes back when memory is short."""
    while True:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        ANONYMOUS_MIB.append(int(status.split("RssAnon:")[1].split()[0]) >> 10)
        ANONYMOUS_MIB[:] = [max(ANONYMOUS_MIB)]
        time.sleep(0.05)


def main(arguments: list[str]) -> None:
    folder, block_tokens = Path(arguments[0]), int((arguments[1:] or ["512"])[0])
    names = sorted(names_in(folder))
    if arguments[2:]:
        malloc.limit_arenas()  # as the command does it
        threading.Thread(target=watch_memory, daemon=True).start()
        start = time.monotonic()
        tokens = {"ours": ours, "plain": plain}[arguments[2]](folder, names, block_tokens)
        seconds = time.monotonic() - start
        cpu = sum(
            used.ru_utime + used.ru_stime
            for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        anonymous_mib = max(ANONYMOUS_MIB, default=0)
        found = {"tokens": tokens, "seconds": seconds, "cpu": cpu, "peak_mib": peak_mib}
        print(json.dumps(found | {"anonymous_mib": anonymous_mib}))
        return
    size = sum((folder / name).stat().st_size for name in names)
    print(f"{len(names)} files, {size / 1e6:.1f} MB")
    for way in WAYS:
        command = [sys.executable, __file__, str(folder), str(block_tokens), way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rate = found["tokens"] / found["seconds"]
        print(
            f"{way:>5}: {found['tokens']:,} tokens in {found['seconds']:.1f} s, "
            f"{rate:,.0f} tokens/s, {found['cpu']:.1f} s of CPU, peak {found['peak_mib']:,} MiB, "
            f"{found['anonymous_mib']:,} of it at once not mapped from files"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
