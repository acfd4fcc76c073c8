"""One architecture through the whole job, beside plain transformers and peft: is it right?"""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from support.architectures import CASES, write_checkpoint
from support.jobs import run_here, variables
from trainer.commands.plan import PlanRequest, plan_run
from trainer.dataset import pipeline
from trainer.dataset.inputs import fetch_inputs
from trainer.dataset.packing import Block
from trainer.distributed.data_parallel import MicroBatchSampler
from trainer.distributed.workers import Workers
from trainer.errors import SettingsError
from trainer.export import gguf, merged
from trainer.inference.chat_model import load_chat_model
from trainer.labels import IGNORED
from trainer.models.adapters import find_adapter
from trainer.models.architecture import model_class
from trainer.models.load import attach_adapter
from trainer.models.locate import BUILTIN
from trainer.settings import Settings

STEPS = 2
WITHOUT_DROPOUT = {"LORA_DROPOUT": "0", "MAX_LOSS_RATIO": "9", "MAX_STEPS": str(STEPS)}


@dataclass
class Found:
    """What became of one architecture; differences are relative, to the truth."""

    path: str = ""
    separate: bool = False
    """whether each document had to have a row of its own"""
    differences: dict[str, float] = field(default_factory=dict)
    export: str = ""

    def worst(self) -> float:
        return max(self.differences.values())


def settings_of(name: str, targets: str, folder: Path) -> dict[str, str]:
    base = folder / "base"
    if not base.exists():
        write_checkpoint(name, base, BUILTIN / "tiny")
    return {"BASE_MODEL": str(base), "TARGET_MODULES": targets} | WITHOUT_DROPOUT


def examine(name: str, targets: str, folder: Path) -> Found:
    """Train, publish, load elsewhere, merge, export, ask, plan. Raises what the job raises."""
    torch.manual_seed(0)
    changes = settings_of(name, targets, folder)
    settings = Settings.read({}, variables(folder, **changes))
    assert "base model" in plan_run(settings, PlanRequest(gpu="l4"))  # which has bf16
    run = run_here(folder, **changes)
    record = json.loads((run / "run.json").read_text())
    found = Found(path="fast" if record["micro_batch"]["plan"] else "stock")
    adapter = find_adapter(str(run), settings, settings.base_model)
    data = pipeline.prepare(settings, fetch_inputs(settings), adapter.base.tokenizer(), None)
    _compare_training(found, run, adapter, settings, data)
    _compare_evaluation(found, record, adapter, data)
    if CASES[name].merge:
        _compare_merged(found, adapter, settings, folder / "merged", data.held_out[0])
    found.export = _export(adapter, settings, folder / "gguf")
    chat = load_chat_model(str(run), settings, settings.base_model)
    assert isinstance("".join(chat.stream("What is the code of part 3?")), str)
    return found


def _compare_training(
    found: Found, run: Path, adapter: Any, settings: Settings, data: pipeline.Data
) -> None:
    """Loss and gradient norm of the first step, documents one by one."""
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    sampler = MicroBatchSampler(
        len(data.train),
        effective_batch_size=settings.effective_batch_size,
        micro_batch_size=settings.effective_batch_size,
        seed=settings.seed,
        workers=Workers(),
    )
    model = attach_adapter(plain_nf4(adapter.base), settings)
    for parameter in model.parameters():
        if parameter.requires_grad:  # trl does that to a fresh adapter
            parameter.data = parameter.data.bfloat16().float()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == json.loads((run / "run.json").read_text())["parameters"]["trainable"]
    loss, tokens = 0.0, 0
    for document in documents(data.train[n] for n in next(iter(sampler))):
        logits = _logits(model, document)
        target = torch.from_numpy(document["labels"][1:].copy())
        lost = torch.nn.functional.cross_entropy(
            logits[:-1].float(), target, ignore_index=IGNORED, reduction="sum"
        )
        lost.backward()
        loss, tokens = loss + float(lost.detach()), tokens + int((target != IGNORED).sum())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm()) / tokens
    found.differences["training loss"] = abs(first["loss"] - loss / tokens) / (loss / tokens)
    found.differences["gradient norm"] = abs(first["grad_norm"] - norm) / norm


def _compare_evaluation(
    found: Found, record: dict[str, Any], adapter: Any, data: pipeline.Data
) -> None:
    """Held-out losses of base and adapter, in plain peft, on each class there is."""
    from peft import PeftModel

    scores = record["evaluation"]
    base = loss_by_documents(plain_nf4(adapter.base), data.held_out)
    found.differences["base"] = abs(scores["base"]["loss"] - base) / base
    for kind in classes_of(adapter.base):
        model = PeftModel.from_pretrained(plain_nf4(adapter.base, kind), adapter.folder).eval()
        tuned = loss_by_documents(model, data.held_out)
        found.differences[kind.__name__] = abs(scores["tuned"]["loss"] - tuned) / tuned
    assert abs(tuned - base) > 1e-3  # the adapter does something


def _compare_merged(
    found: Found, adapter: Any, settings: Settings, output: Path, block: Block
) -> None:
    """Logits of the merged model beside those of base and adapter in NF4, which it starts from."""
    from peft import PeftModel

    merged.merge(adapter, settings, output)
    kind = classes_of(adapter.base)[-1]
    whole = kind.from_pretrained(output, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(plain_nf4(adapter.base, kind), adapter.folder).eval()
    document = next(documents([block]))
    with torch.no_grad():
        truth, ours = _logits(model, document), _logits(whole, document)
    found.differences["merged"] = float((ours - truth).abs().max() / truth.std())


def _export(adapter: Any, settings: Settings, output: Path) -> str:
    try:
        gguf.export(adapter, settings, ["merged"], output)
    except SettingsError as error:
        return str(error)
    return "ok"


def classes_of(base: Any) -> list[Any]:
    """The class that is trained and, last, the one that the config names."""
    from transformers import AutoModelForImageTextToText

    named = base.named_skeleton is not None
    return [model_class(base.config), *([AutoModelForImageTextToText] if named else [])]


def plain_nf4(base: Any, kind: Any = None) -> Any:
    """The base as transformers loads it, in NF4 and float32, without this project."""
    from transformers import BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = (kind or model_class(base.config)).from_pretrained(
        base.folder,
        **({} if base.is_quantised else {"quantization_config": nf4}),
        dtype=torch.float32,
        device_map={"": "cpu"},
        attn_implementation=base.attention,
    )
    for module in model.modules():  # or bitsandbytes rounds the base once more on some CPUs
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if base.is_quantised and hasattr(getattr(module, "weight", None), "quant_state"):
            module.compute_dtype = module.weight.quant_state.dtype = torch.float32
    if base.is_quantised:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()
    else:
        _experts_as_trained(model)
    return model.requires_grad_(False).eval()


def _experts_as_trained(model: Any) -> None:
    """Each matrix of the experts quantised to NF4 by bitsandbytes, and dequantised."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if not hasattr(module, "is_concatenated") or weight.dim() != 3:
                continue
            halves = 2 if name == "gate_up_proj" and not module.is_transposed else 1
            for matrix in weight.data.reshape(-1, weight.shape[1] // halves, weight.shape[2]):
                nf4 = quantize_4bit(matrix, quant_type="nf4", compress_statistics=True)
                matrix.copy_(dequantize_4bit(*nf4))


def documents(blocks: Any) -> Any:
    """The documents of blocks that have a trained token, as arrays."""
    for block in blocks:
        bounds = [*np.flatnonzero(block.position_ids == 0), len(block.labels)]
        for start, end in pairwise(bounds):
            one = {n: getattr(block, n)[start:end] for n in ("input_ids", "labels")}
            if (one["labels"] != IGNORED).any():
                yield one


def loss_by_documents(model: Any, blocks: Any) -> float:
    """Mean over the trained tokens, each document alone."""
    total, tokens = 0.0, 0
    with torch.no_grad():
        for document in documents(blocks):
            target = torch.from_numpy(document["labels"][1:].copy())
            lost = torch.nn.functional.cross_entropy(
                _logits(model, document)[:-1].float(), target, reduction="sum"
            )
            total, tokens = total + float(lost), tokens + int((target != IGNORED).sum())
    return total / tokens


def _logits(model: Any, document: dict[str, Any]) -> torch.Tensor:
    ids = torch.from_numpy(document["input_ids"].copy())[None]
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits
