"""What a tuned model answers in each form in which it leaves, beside what was tested.

    OMP_NUM_THREADS=1 python bench/leaves.py RUN QUESTIONS.jsonl BASE     minutes on a CPU

QUESTIONS.jsonl has the records that RUN was trained on, or others: each a question and its answer.
Each form answers all of them greedily. "as tested" counts the answers that are, word for word,
those of the adapter on the NF4 base. llama.cpp answers too where the package `xllamacpp` is
installed, and quantises where `cyllama` is.
"""

import argparse
import importlib
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from trainer.evaluation.answer_metrics import same_answer
from trainer.export.gguf import PARTS, export
from trainer.export.lora_delta import NF4, OWN
from trainer.export.merged import merge
from trainer.inference.chat_model import load_chat_model
from trainer.inference.generate import Answerer
from trainer.models.adapters import Adapter, find_adapter
from trainer.settings import Settings

LONGEST_TOKENS = 64
MOST_TOKENS = LONGEST_TOKENS + 448  # of question and answer, in llama.cpp
K_QUANTS = {"Q8_0": 7, "Q4_K_M": 15}  # llama.cpp's numbers of file types
Answers = tuple[str, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("run")
    parser.add_argument("questions", type=Path)
    parser.add_argument("base")
    given = parser.parse_args()
    records = [
        json.loads(line) for line in given.questions.read_text(encoding="utf-8").splitlines()
    ]
    questions = [record["question"] for record in records]
    print(f"{'':44}{'exact':>8}{'as tested':>11}", flush=True)
    tested: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for form, answers in all_forms(given.run, given.base, questions, Path(folder)):
            tested = tested or answers
            exact = sum(same_answer(a, r["answer"]) for a, r in zip(answers, records, strict=True))
            same = sum(a == b for a, b in zip(answers, tested, strict=True))
            print(f"{form:44}{exact:5} / {len(records)}{same:6} / {len(records)}", flush=True)


def all_forms(run: str, base: str, questions: Sequence[str], folder: Path) -> Iterator[Answers]:
    settings = Settings.read({}, {"QLORA_SCRATCH_DIR": str(folder / "scratch")}, trains=False)
    adapter = find_adapter(run, settings, base)
    tokenizer = adapter.tokenizer()

    def asked(model: Any) -> list[str]:
        with Answerer(model, tokenizer) as answerer:
            return [reply.text for reply in answerer.replies(questions, LONGEST_TOKENS)]

    yield "adapter on NF4, as `ask`", asked(load_chat_model(run, settings, base).model)
    yield "adapter on NF4, plain peft by its card", asked(model_of_card(adapter, base))
    yield "adapter on the 16-bit base", asked(load_chat_model(run, settings, base, "16bit").model)
    yield "`evaluate --as merged`", asked(load_chat_model(run, settings, base, "merged").model)
    for start in (NF4, OWN):
        merged = merge(adapter, settings, folder / f"merged-{start}", start)
        for dtype in (torch.float32, torch.bfloat16):
            model = AutoModelForCausalLM.from_pretrained(merged, dtype=dtype)
            yield f"merged from {start}, computed in {str(dtype)[6:]}", asked(model)
        files = export(adapter, settings, PARTS, folder / f"gguf-{start}", start)
        model = AutoModelForCausalLM.from_pretrained(files, gguf_file="merged.gguf")
        yield f"GGUF from {start}, read by transformers", asked(model)
        if importlib.util.find_spec("xllamacpp"):
            yield from by_llama_cpp(files, start, questions)


def model_of_card(adapter: Adapter, base: str) -> Any:
    """By the code of the model card, up to where it asks."""
    card = (adapter.folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^asked", card)
    code = code.replace("<this folder>", str(adapter.folder))
    code = re.sub("<folder of [^>]*>", base, code)
    found: dict[str, Any] = {}
    exec(code, found)
    return found["model"].eval()


def by_llama_cpp(files: Path, start: str, questions: Sequence[str]) -> Iterator[Answers]:
    yield f"GGUF from {start}, llama.cpp", completions(files / "merged.gguf", questions)
    adapter = completions(files / "base.gguf", questions, files / "adapter.gguf")
    yield f"GGUF base from {start} and adapter, llama.cpp", adapter
    if importlib.util.find_spec("cyllama"):
        llama_cpp = importlib.import_module("cyllama.llama.llama_cpp")

        for name, kind in K_QUANTS.items():
            wanted = llama_cpp.LlamaModelQuantizeParams()
            wanted.ftype = kind
            small = files / f"{name}.gguf"
            llama_cpp.model_quantize(str(files / "merged.gguf"), str(small), wanted)
            yield f"GGUF from {start} as {name}, llama.cpp", completions(small, questions)


def completions(model: Path, questions: Sequence[str], adapter: Path | None = None) -> list[str]:
    """Through the chat template in the file, greedily."""
    xllamacpp = importlib.import_module("xllamacpp")
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(model)
    wanted.n_ctx, wanted.n_parallel, wanted.warmup = MOST_TOKENS, 1, False
    wanted.cpuparams.n_threads = torch.get_num_threads()
    if adapter:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = str(adapter), 1.0
        wanted.lora_adapters = [lora]
    server = xllamacpp.Server(wanted)
    answers = []
    for question in questions:
        asked = [{"role": "user", "content": question}]
        request = {"messages": asked, "temperature": 0, "max_tokens": LONGEST_TOKENS}
        reply = server.handle_chat_completions(request)
        answers.append(str(reply["choices"][0]["message"]["content"]).strip())
    return answers


if __name__ == "__main__":
    main()
