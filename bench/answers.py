"""Tokens/s of greedy answers: our loop beside transformers' generate, on the device that is here.

    python bench/answers.py MODEL [--rows 1 16]       a model in a folder, on a CPU or a GPU
    python bench/answers.py --7b [--rows 1 64 128]    Llama-2-7B with random weights, on a GPU
    python bench/answers.py --7b --t4                 as planned for a T4, in its 14.7 GiB
    python bench/answers.py MODEL --shared 300        prompts that begin with the same 300 tokens

The base is in NF4, with an adapter r=8 on q and v. Each row has a prompt of --prompt tokens and is
answered with --tokens, none of which ends it; a beginning that all --shared comes on top, and then
ours answers a third time as if it saw none. Both answer the same prompts in one process, others in
each round, in turns, ours first; the time is that of whole answers, reading the prompts included,
and the median of --rounds after one that warms up. A second of processor time says more on a busy
machine. `same` is the share of answers that are equal.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch

import torch  # noqa: E402

GIB, T4_GIB = 2**30, 14.7
TARGETS = ["q_proj", "v_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--7b", dest="llama", action="store_true")
    parser.add_argument("--t4", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64, 128])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--shared", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--ours", action="store_true", help="without transformers beside it")
    given = parser.parse_args()
    if given.t4:
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    model = (random_7b(given.dtype) if given.llama else from_folder(given.model)).eval()
    if given.t4:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(T4_GIB * GIB / total)
    for rows in given.rows:
        for row in measure(model, rows, given):
            print(json.dumps(row), flush=True)


def random_7b(dtype: str) -> Any:
    from models import llama_2_7b, random_model, with_adapter

    return with_adapter(random_model(llama_2_7b(), getattr(torch, dtype)), TARGETS)


def from_folder(folder: str) -> Any:
    from trainer.models import load
    from trainer.models.locate import locate_base
    from trainer.runtime.device import choose_precision, find_device
    from trainer.settings import Settings

    variables = {"QLORA_BASE_MODEL": folder, "QLORA_SCRATCH_DIR": tempfile.mkdtemp()}
    settings, device = Settings.read({}, variables, trains=False), find_device()
    base = locate_base(settings)
    model = load.load_base(base, settings, choose_precision("auto", device), device)
    tuned = load.attach_adapter(model, settings)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-3)
    return tuned


def measure(model: Any, rows: int, given: argparse.Namespace) -> Any:
    """A row for ours and for transformers'."""
    from trainer.engine.greedy_decoder import GreedyDecoder
    from trainer.inference.stock_decoder import StockDecoder

    never = [model.config.vocab_size]  # no token ends an answer
    own: Any = GreedyDecoder(model, never)
    if given.t4:
        own._capability = 7, 5
    decoders: dict[str, Any] = {"ours": own}
    if given.shared:
        decoders["ours, each read whole"] = read_whole(model, never)
    if not given.ours:
        decoders["transformers"] = StockDecoder(model, never, 0)
    answers, memory = {}, {}
    planned = planned_gib(model, own, rows, given.prompt + given.shared + given.tokens)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in decoders}
    for number in range(given.rounds + 1):
        # Others each time: what rows still hold of the last ones is not read again.
        prompts = random_prompts(model.config.vocab_size, rows, number, given)
        for name, decoder in decoders.items():
            begin = start(model), time.process_time()
            found = dict(decoder.answers(prompts, given.tokens, tuned=True, most_rows=rows))
            finish(model)
            if number:
                ends = time.perf_counter(), time.process_time()
                seconds[name].append((ends[0] - begin[0], ends[1] - begin[1]))
            memory[name] = peak(model)
            answers[name] = [found[at] for at in range(rows)]
            if given.t4:  # there is no room for both
                decoder.close()
    for name, each in seconds.items():
        pairs = zip(answers[name], answers["ours"], strict=True)
        rates = [rows * given.tokens / statistics.median(of) for of in zip(*each, strict=True)]
        yield {
            "by": name,
            "rows": rows,
            "tokens_per_s": round(rates[0], 1),
            "tokens_per_cpu_s": round(rates[1], 1),
            "same": sum(a == b for a, b in pairs) / rows,
            "peak_gib": memory[name],
        } | ({"planned_gib": planned} if name == "ours" else {})
    own.close()


def random_prompts(
    vocabulary: int, rows: int, number: int, given: argparse.Namespace
) -> list[list[int]]:
    noise = torch.Generator().manual_seed(1000 * number + rows)
    beginning = torch.randint(vocabulary, (given.shared,), generator=noise).tolist()
    own = torch.randint(vocabulary, (rows, given.prompt), generator=noise).tolist()
    return [[*beginning, *prompt] for prompt in own]


def read_whole(model: Any, ends: list[int]) -> Any:
    """Our decoder with rows that copy nothing from each other."""
    from trainer.engine import greedy_decoder
    from trainer.engine.decode_rows import DecodeRows
    from trainer.engine.prompt_reading import HeldPrompts

    class Rows(DecodeRows):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self._held = HeldPrompts(sys.maxsize)

    module: Any = greedy_decoder

    class Decoder(greedy_decoder.GreedyDecoder):
        def open(self, *given: Any, **more: Any) -> Any:
            usual, module.DecodeRows = module.DecodeRows, Rows
            try:
                return super().open(*given, **more)
            finally:
                module.DecodeRows = usual

    return Decoder(model, ends)


def start(model: Any) -> float:
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    return time.perf_counter()


def finish(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def planned_gib(model: Any, decoder: Any, rows: int, length: int) -> float | None:
    """What is allocated now, and what the plan puts beside it, at most."""
    if model.device.type != "cuda":
        return None
    needs, plan = decoder.needs(length), decoder.plan(rows, length)
    more = plan.rows * needs.row + plan.unpacked_layers * needs.layer + needs.prompts
    whole: float = torch.cuda.memory_allocated() + more
    return round(whole / GIB, 2)


def peak(model: Any) -> float | None:
    cuda = model.device.type == "cuda"
    return round(torch.cuda.max_memory_allocated() / GIB, 2) if cuda else None


if __name__ == "__main__":
    main()
