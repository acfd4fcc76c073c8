"""Tokens/s on a CPU with the built-in model: our engine, our stock path, and a plain trl script.

    python bench/cpu.py [--steps 12] [--length 512] [--dropout 0]

The same blocks, seed and settings for all, each in a process of its own, in turns. Prints tokens/s
of the median step, the same for each second of processor time (which a busy machine disturbs less)
and the last loss: without dropout the same for all; with it a plain script draws
other masks, for it seeds once and the job does for each micro-batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

STEP_BLOCKS = 16  # blocks of an optimizer step
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

VARIANTS = {
    "trl": "plain trl script",
    "trl-kept": "plain trl script, activation checkpointing off",
    "stock": "ours, QLORA_ENGINE=stock",
    "engine": "ours",
}
ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        steps, length, dropout = arguments.steps, arguments.length, arguments.dropout
        print(json.dumps(measure(arguments.variant, steps, length, dropout)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name in VARIANTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", name]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[name].append(json.loads(out.splitlines()[-1]))
    for name, rows in found.items():
        rates, of_cpu = (
            " ".join(f"{row[figure]:7,.0f}" for row in rows)
            for figure in ("tokens_per_s", "tokens_per_cpu_s")
        )
        print(
            f"{VARIANTS[name]:<50} {rates} tokens/s {of_cpu} a CPU second   "
            f"last loss {rows[0]['loss']:.6f}"
        )


def measure(variant: str, steps: int, length: int, dropout: float) -> dict[str, float]:
    import torch

    from trainer.dataset.packing import Block
    from trainer.models.locate import locate_base
    from trainer.runtime.device import find_device
    from trainer.settings import Settings

    settings = Settings.read(
        {},
        {
            "QLORA_BASE_MODEL": "builtin:tiny",
            "QLORA_MAX_LENGTH": str(length),
            "QLORA_MAX_STEPS": str(steps),
            "QLORA_LORA_DROPOUT": str(dropout),
            "QLORA_SCRATCH_DIR": tempfile.mkdtemp(),
        },
        trains=False,
    )
    noise = torch.Generator().manual_seed(0)
    blocks = []
    for _ in range(steps * STEP_BLOCKS):  # one epoch: the next has another order
        ids = torch.randint(3000, (length,), generator=noise)
        positions = torch.arange(length) % (length // 4)  # four documents in a block
        labels = ids.masked_fill(positions == 0, -100)
        blocks.append(Block(ids.numpy(), labels.numpy(), positions.numpy()))
    base, device = locate_base(settings), find_device()
    trainer = _made(variant, base, settings, blocks, device)
    ends: list[tuple[float, float]] = []
    _count(trainer, ends)
    trainer.train()
    tokens = STEP_BLOCKS * length
    wall, cpu = (
        tokens / statistics.median(b - a for a, b in pairwise(times))
        for times in zip(*ends, strict=True)
    )
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"tokens_per_s": wall, "tokens_per_cpu_s": cpu, "loss": losses[-1]}


def _count(trainer: Any, ends: list[tuple[float, float]]) -> None:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append((time.perf_counter(), time.process_time()))

    trainer.add_callback(Clock())


def _made(variant: str, base: Any, settings: Any, blocks: Any, device: Any) -> Any:
    from trainer.models import load
    from trainer.planner import choose
    from trainer.runtime.device import choose_precision

    precision = choose_precision("auto", device)
    task = choose.Workload(
        device,
        base.shape(),
        trainable=0,
        step_blocks=STEP_BLOCKS,
        block_tokens=settings.max_length,
        engine=variant == "engine",
    )
    execution = choose.choose(task)
    if variant.startswith("trl"):
        return _plain_trl(variant, base, settings, blocks, execution.blocks)
    from trainer.planner.schedule import Schedule
    from trainer.training.resumable_trainer import ResumableTrainer
    from trainer.training.setup import TrainingSetup

    tuned = load.attach_adapter(load.load_base(base, settings, precision, device), settings)
    return ResumableTrainer(
        TrainingSetup(
            model=tuned,
            tokenizer=base.tokenizer(),
            blocks=blocks,
            settings=settings,
            precision=precision,
            device=device,
            schedule=Schedule(1, STEP_BLOCKS, 2e-4, 0.03),
            execution=execution,
        )
    )


def _plain_trl(variant: str, base: Any, settings: Any, blocks: Any, micro_batch: int) -> Any:
    """What a user would write with trl, peft and bitsandbytes, on tokenised blocks."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(
        base.folder,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
        dtype=torch.float32,
        device_map={"": "cpu"},
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=settings.effective_batch_size // micro_batch,
            max_steps=settings.max_steps,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_ratio,
            lr_scheduler_type=settings.scheduler,
            max_grad_norm=0.3,
            optim="paged_adamw_8bit",
            bf16=False,
            seed=settings.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            **({"activation_checkpointing": False} if variant == "trl-kept" else {}),
        ),
        train_dataset=Dataset.from_list([vars(block) for block in blocks]),
        processing_class=base.tokenizer(),
        data_collator=lambda rows: {k: torch.tensor([r[k] for r in rows]) for k in rows[0]},
        peft_config=LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=list(settings.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    for weight in trainer.model.parameters():
        if weight.requires_grad:  # trl makes them bfloat16; ours are float32
            weight.data = weight.data.float()
    return trainer


if __name__ == "__main__":
    main()
