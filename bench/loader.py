"""Time and host memory of bringing a 7B base to NF4, on a machine without an S3 server.

    python bench/loader.py [--layers 32] FOLDER

A Llama-2-7B with random weights is written to FOLDER (13 GB) unless it is there. Ours and
transformers' own loader run in a process each. Memory is what the process had anonymously at most
above what it had before, without the quantised weights where those lie in host memory too; of a
GPU what was allocated at most.
`bench/base.py` does it from a bucket, up to a job's first step.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]
LOADERS = {
    "ours": "ours, tensor by tensor",
    "hosted": "every layer in host memory",
    "stock": "transformers' own",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--only", choices=LOADERS, action="append")
    parser.add_argument("--loader", choices=LOADERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loader:
        print(json.dumps(measure(arguments.loader, arguments.folder)))
        return
    if not (arguments.folder / "model.safetensors.index.json").exists():
        write(arguments.folder, arguments.layers)
    for path in arguments.folder.glob("*.safetensors"):  # both find them in the page cache
        subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
    for loader in arguments.only or LOADERS:
        command = [sys.executable, __file__, str(arguments.folder), "--loader", loader]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        row = json.loads(out.splitlines()[-1])
        text = f"{LOADERS[loader]:<28} {row['seconds']:6.1f} s   {row['host_gib']:5.2f} GiB"
        print(f"{text}, {row['gpu_gib']:.2f} of the GPU", flush=True)


def write(folder: Path, layers: int) -> None:
    import torch
    from models import llama_2_7b, write_checkpoint

    write_checkpoint(llama_2_7b(layers), folder, torch.float16)


def measure(loader: str, folder: Path) -> dict[str, float]:
    import bitsandbytes  # noqa: F401
    import torch

    from trainer.models import load
    from trainer.models.frozen_base import WholeBase
    from trainer.models.locate import locate_base
    from trainer.models.streamed_base import StreamedBase
    from trainer.runtime.device import choose_precision, find_device
    from trainer.settings import Settings

    device = find_device()
    torch.zeros(1, device=device.kind)  # a GPU's context is no loader's memory
    precision = choose_precision("fp16" if device.kind == "cuda" else "auto", device)
    given = {"QLORA_BASE_MODEL": str(folder), "QLORA_SCRATCH_DIR": tempfile.mkdtemp()}
    settings = Settings.read({}, given, trains=False)
    base = locate_base(settings)
    layers = base.shape().layers
    frozen = StreamedBase(layers) if loader == "hosted" else WholeBase()
    with Watch() as watch:
        if loader != "stock":
            made = load.load_base(base, settings, precision, device, frozen)
        else:
            made = load.load_with_transformers(base, precision.dtype, torch.device(device.kind))
        if device.kind == "cuda":
            torch.cuda.synchronize()
    tensors = [*made.state_dict().values(), *getattr(frozen, "_host", {}).values()]
    here = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors if t.is_cpu}
    host = watch.most_bytes - sum(storage.nbytes() for storage in here.values())
    gpu = torch.cuda.max_memory_allocated() if device.kind == "cuda" else 0
    return {"seconds": watch.seconds, "host_gib": host / 2**30, "gpu_gib": gpu / 2**30}


class Watch:
    """Seconds, and the most anonymous memory of this process above what it had at the beginning."""

    def __enter__(self) -> "Watch":
        self._before, self.most_bytes, self._over = anonymous_bytes(), 0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self._started
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            self.most_bytes = max(self.most_bytes, anonymous_bytes() - self._before)


def anonymous_bytes() -> int:
    (kib,) = re.findall(
        r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8")
    )
    return int(kib) * 1024


if __name__ == "__main__":
    main()
