"""Tokens a second from files to packed blocks, beside the plain way, on the same files in one run.

    python bench/data.py FOLDER [BLOCK_TOKENS]

The plain way is `load_dataset("text", sample_by="document")`, `map(tokenize)` and trl's packing.
Ours also decodes strictly, looks for copies and cuts at structure. Each runs in a fresh process.
Only the .txt and .md files of FOLDER are read. `TOKENIZER` names another tokenizer than that of
the built-in model; a real one is needed for figures that mean something.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
TOKENIZER = os.environ.get("TOKENIZER", str(ROOT / "trainer/builtin/tiny"))


def ours(files: list[Path], block_tokens: int) -> int:
    from transformers import AutoTokenizer

    from trainer import blocks, corpus

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    read = corpus.read_corpus([corpus.Source(path.name, path) for path in files])
    sequences, counts = blocks.encode(read.examples, tokenizer, block_tokens)
    blocks.pack(sequences, block_tokens, tokenizer.pad_token_id)
    return counts.tokens


def plain(files: list[Path], block_tokens: int) -> int:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl.data_utils import pack_dataset

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset(
            "text",
            data_files=[str(path) for path in files],
            sample_by="document",
            split="train",
            cache_dir=cache,
        )
        rows = rows.map(
            lambda row: {"input_ids": tokenizer(row["text"])["input_ids"]},
            remove_columns=["text"],
        )
        packed = pack_dataset(rows, block_tokens, strategy="bfd_split")
        return sum(len(row) for row in packed["input_ids"])


def main(arguments: list[str]) -> None:
    folder, block_tokens = Path(arguments[0]), int((arguments[1:] or ["512"])[0])
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".txt", ".md"))
    if arguments[2:]:
        start = time.monotonic()
        tokens = {"ours": ours, "plain": plain}[arguments[2]](files, block_tokens)
        seconds = time.monotonic() - start
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps({"tokens": tokens, "seconds": seconds, "peak_mib": peak_mib}))
        return
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB")
    for way in ("plain", "ours"):
        command = [sys.executable, __file__, str(folder), str(block_tokens), way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rate = found["tokens"] / found["seconds"]
        print(
            f"{way:>5}: {found['tokens']:,} tokens in {found['seconds']:.1f} s, "
            f"{rate:,.0f} tokens/s, peak {found['peak_mib']:,} MiB"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
