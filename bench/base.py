"""A base in a bucket: seconds to the first step, from where, and how much host memory that takes.

    python bench/base.py s3://BUCKET/PREFIX/ [--gb 1] [--hidden 2048]

Writes a Llama with random weights there, and then, each in a process of its own: fetches it and
keeps nothing, quantises it from this disk, and starts the job up to its first step with the
built-in model (what any start takes), from this disk, from the bucket, from there again while it
fills QLORA_BASE_CACHE_URI, and from that. `load` is the part of it in `load_base`. Memory is the
most that the process had resident up to then, libraries and all, without the quantised weights
where those lie in host memory too.
"""

import argparse
import json
import math
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
HEADS_OF = 128  # values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri")
    parser.add_argument("--gb", type=float, default=1, help="size of the 16-bit checkpoint")
    parser.add_argument(
        "--hidden", type=int, default=2048, help="4096 has the layers of a 7B model"
    )
    arguments = parser.parse_args()
    bucket = arguments.uri.rstrip("/") + "/" + secrets.token_hex(4)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        written = run("write", folder, gb=arguments.gb, hidden=arguments.hidden, bucket=bucket)
        print(f"{written['bytes'] / 1e9:.2f} GB, {written['parameters']:,} parameters")
        local, base, cache = str(folder / "model"), f"{bucket}/model/", f"{bucket}/cache/"
        measured = {
            "transfer alone": ("transfer", {"base": base}),
            "quantising alone, from disk": ("quantise", {"base": local}),
            "job, built-in model": ("job", {"base": "builtin:tiny"}),
            "job, from disk": ("job", {"base": local}),
            "job, from the bucket": ("job", {"base": base}),
            "job, fills the cache": ("job", {"base": base, "cache": cache}),
            "job, from the cache": ("job", {"base": base, "cache": cache}),
        }
        print("|  | seconds | of them load | CPU seconds | MiB above the quantised weights |")
        print("|-|-|-|-|-|", flush=True)
        for name, (what, given) in measured.items():
            row = run(what, folder, **given)
            load = f"{row['load']:.1f}" if "load" in row else ""
            above = row.get("above_mib", row["peak_mib"])
            figures = f"{row['seconds']:.1f} | {load} | {row['cpu']:.1f} | {above:,}"
            print(f"| {name} | {figures} |", flush=True)
        run("clear", folder, bucket=bucket)


def run(what: str, folder: Path, **given: Any) -> dict[str, Any]:
    """What `what` measured in a process of its own; `seconds` from that process' start."""
    command = [sys.executable, "-c", "import base; base.child()", what, str(folder)]
    command += [json.dumps(given), str(time.time())]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "bench")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child() -> None:
    from trainer.runtime import lean_imports, malloc

    lean_imports.collect_rarely()  # as the command does
    malloc.limit_arenas()
    what, folder, given, started = sys.argv[1:]
    doing: dict[str, Callable[..., dict[str, Any]]] = {
        "write": write,
        "transfer": transfer,
        "quantise": quantise,
        "job": first_step,
        "clear": clear,
    }
    found = doing[what](Path(folder), **json.loads(given))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found |= {
        "seconds": time.time() - float(started),
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss >> 10,
    }
    print(json.dumps(found), flush=True)
    os._exit(0)  # what a stopped job still has in hand does not matter


def write(folder: Path, gb: float, hidden: int, bucket: str) -> dict[str, Any]:
    """The checkpoint, on this disk and in the bucket, and data to train on."""
    import torch
    from models import write_checkpoint
    from transformers import LlamaConfig

    from trainer.storage import open_store

    config = LlamaConfig(
        vocab_size=3072,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_attention_heads=hidden // HEADS_OF,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    layer = 4 * hidden**2 + 3 * hidden * config.intermediate_size
    config.num_hidden_layers = max(1, math.ceil((gb * 1e9 / 2 - 2 * 3072 * hidden) / layer))
    write_checkpoint(config, folder / "model", torch.bfloat16)
    store = open_store(bucket, retry_minutes=1)
    for path in (folder / "model").iterdir():
        store.upload(path, f"model/{path.name}")
    rows = [{"question": f"Part {n}?", "answer": f"HG-{n * 37 % 1000:04}"} for n in range(40)]
    (folder / "data.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    size = sum(p.stat().st_size for p in (folder / "model").glob("*.safetensors"))
    return {"bytes": size, "parameters": size // 2}


def transfer(folder: Path, base: str) -> dict[str, Any]:
    from trainer.storage import objects_at

    store, found = objects_at(base, retry_minutes=1)
    return {"bytes": sum(len(chunk) for stored in found for chunk in store.chunks(stored))}


def quantise(folder: Path, base: str) -> dict[str, Any]:
    from trainer.models import load
    from trainer.models.locate import locate_base
    from trainer.runtime.device import choose_precision, find_device

    given = settings(folder, base)
    located, device = locate_base(given), find_device()
    return loaded(load.load_base, located, given, choose_precision("auto", device), device)[1]


def first_step(folder: Path, base: str, cache: str = "") -> dict[str, Any]:
    """The job as the command runs it, up to where its first step would begin."""
    from trainer import job
    from trainer.models import load as loader
    from trainer.runtime import log

    class Reached(BaseException):
        pass

    def step(*_: Any, **__: Any) -> None:
        raise Reached

    def load(*arguments: Any) -> Any:
        # Imported by now; here, for the order of heavy imports decides what they cost.
        from transformers.trainer_callback import CallbackHandler

        CallbackHandler.on_step_begin = step
        made, figures = loaded(real, *arguments)
        found.update(figures)
        return made

    found: dict[str, Any] = {}
    real = loader.load_base
    given = settings(folder, base, cache)
    log.set_up("json", "WARNING")
    try:
        with patch.object(loader, "load_base", load):
            job.run(given)
    except Reached:
        return found
    raise AssertionError("it trained")


def loaded(load: Any, *arguments: Any) -> tuple[Any, dict[str, Any]]:
    begin = time.monotonic()
    made = load(*arguments)
    seconds = time.monotonic() - begin
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    values = [t for t in made.state_dict().values() if t.device.type == "cpu"]
    quantised_mib = sum(t.nbytes for t in values) >> 20
    return made, {"load": seconds, "above_mib": peak_mib - quantised_mib}


def settings(folder: Path, base: str, cache: str = "") -> Any:
    from trainer.settings import Settings

    given = {
        "BASE_MODEL": base,
        "BASE_CACHE_URI": cache,
        "DATA_URI": str(folder / "data.jsonl"),
        "OUTPUT_URI": str(folder / "out"),
        "SCRATCH_DIR": tempfile.mkdtemp(dir=folder),
        "RUN_ID": f"run-{secrets.token_hex(4)}",
        "MAX_LENGTH": "64",
        "EFFECTIVE_BATCH_SIZE": "1",
    }
    return Settings.read({}, {f"QLORA_{name}": value for name, value in given.items() if value})


def clear(folder: Path, bucket: str) -> dict[str, Any]:
    from trainer.storage import open_store

    store = open_store(bucket, retry_minutes=1)
    store.delete([stored.name for stored in store.list()])
    return {}


if __name__ == "__main__":
    main()
